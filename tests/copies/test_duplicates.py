"""Near-duplicates: planted ones are found, similar images are not."""

import torch

from unimodal_monitor.copies.duplicates import distinct_distances, near_duplicates
from unimodal_monitor.copies.nearest import Distances, nearest_training_images


def images(num: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def groups_of(training: torch.Tensor, anchors: list[int], **options) -> list[list[int]]:
    found = near_duplicates(torch.tensor(anchors), Distances(training, **options))
    return [sorted(group.tolist()) for group in found]


def test_equal_mirrored_and_slightly_changed_duplicates_are_found_and_others_have_none():
    base = images(30)
    training = torch.cat([base, base[3:4], base[3:4].flip(-1), base[3:4] + 0.03 * images(1, seed=1), base[8:9]])
    assert groups_of(training, [3, 8, 9, 32]) == [[30, 31, 32], [33], [], [3, 30, 31]]
    assert groups_of(training, [3], flips=False) == [[30, 32]]


def test_a_set_that_is_repeated_whole_is_all_duplicates():
    """Equal images do not make the typical distance zero; images that are all equal have no other picture."""
    assert groups_of(images(20).repeat(3, 1, 1, 1), [0, 25]) == [[20, 40], [5, 45]]
    assert groups_of(images(1).repeat(4, 1, 1, 1), [0]) == [[]]


def test_images_of_a_film_or_of_a_cluster_far_from_all_others_are_no_duplicates():
    """Each image is near the next, and there is no gap; images of a cluster are as far apart as those of this set."""
    film = (0.1 * images(40, seed=1)).cumsum(0)
    assert groups_of(torch.cat([film, images(200)]), [0, 20, 39]) == [[], [], []]
    clusters = torch.cat([0.1 * images(30, seed=1) + centre for centre in images(3)])
    assert groups_of(clusters, list(range(0, 90, 10))) == [[]] * 9


def test_a_still_scene_is_one_picture():
    """Images much nearer to each other than images of this set are: a documented limit of the rule."""
    scene = images(1) + 0.1 * images(20, seed=1)
    assert groups_of(torch.cat([scene, images(200, seed=2)]), [0]) == [list(range(1, 20))]


def test_distances_skip_the_duplicates():
    """A loop over the images that are left; the second distance itself where nothing is skipped."""
    base = images(30)
    training = torch.cat([base, base[3:4], base[3:4] + 0.03 * images(1, seed=1)])
    samples = torch.cat([base[3:4] + 0.1 * images(1, seed=2), images(5, seed=3)])
    nearest = nearest_training_images(samples, Distances(training))
    found = distinct_distances(samples, nearest, Distances(training))
    others = torch.cat([base[:3], base[4:]])
    straight, across = ((samples[0] - o).double().flatten(1).norm(dim=1).min() for o in (others, others.flip(-1)))
    torch.testing.assert_close(found[0], torch.minimum(straight, across))
    has_no_duplicates = [i for i in range(1, 6) if nearest.indices[i, 0] not in (3, 30, 31)]
    torch.testing.assert_close(found[has_no_duplicates], nearest.distances[has_no_duplicates, 1], rtol=0, atol=0)
