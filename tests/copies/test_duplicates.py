"""Near-duplicates: planted ones are found, similar images are not taken for them."""

import torch

from unimodal_monitor.copies.duplicates import distinct_distances, near_duplicates
from unimodal_monitor.copies.nearest import Distances, nearest_training_images


def images(num: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def groups_of(training: torch.Tensor, anchors: list[int], **options) -> list[list[int]]:
    found = near_duplicates(torch.tensor(anchors), Distances(training, **options))
    return [sorted(group.tolist()) for group in found]


def test_planted_duplicates_are_found_and_others_have_none():
    """Equal, mirrored and slightly changed ones, compared chunk by chunk."""
    base = images(30)
    training = torch.cat([base, base[3:4], base[3:4].flip(-1), base[3:4] + 0.03 * images(1, seed=1), base[8:9]])
    for options in ({}, {"chunk_size": 7}):
        assert groups_of(training, [3, 8, 9, 32], **options) == [[30, 31, 32], [33], [], [3, 30, 31]]
    assert groups_of(training, [3], flips=False) == [[30, 32]]


def test_a_set_that_is_repeated_whole_is_all_duplicates():
    """Equal images do not make the typical distance zero."""
    assert groups_of(images(20).repeat(3, 1, 1, 1), [0, 25]) == [[20, 40], [5, 45]]


def test_a_film_has_no_duplicates():
    """Each image is near the next, and there is no gap."""
    film = (0.1 * images(40, seed=1)).cumsum(0)
    assert groups_of(torch.cat([film, images(200)]), [0, 20, 39]) == [[], [], []]


def test_a_still_scene_is_one_picture():
    """Images much nearer to each other than images of this set are: the rule's limit, and its docstring says so."""
    scene = images(1) + 0.1 * images(20, seed=1)
    assert groups_of(torch.cat([scene, images(200, seed=2)]), [0]) == [list(range(1, 20))]


def test_a_cluster_far_from_all_others_has_no_duplicates():
    """Its images are as far apart as images of this set are."""
    clusters = torch.cat([0.1 * images(30, seed=1) + centre for centre in images(3)])
    assert groups_of(clusters, list(range(0, 90, 10))) == [[]] * 9


def test_equal_images_alone_have_no_duplicates():
    """There is no other picture to be nearer than."""
    assert groups_of(images(1).repeat(4, 1, 1, 1), [0]) == [[]]


def test_distances_pass_over_the_duplicates():
    """A loop over the images that are left; the second distance itself where nothing is passed over."""
    base = images(30)
    training = torch.cat([base, base[3:4], base[3:4] + 0.03 * images(1, seed=1)])
    samples = torch.cat([base[3:4] + 0.1 * images(1, seed=2), images(5, seed=3)])
    nearest = nearest_training_images(samples, training)
    found = distinct_distances(samples, nearest, Distances(training))
    others = torch.cat([base[:3], base[4:]])
    straight, across = ((samples[0] - o).double().flatten(1).norm(dim=1).min() for o in (others, others.flip(-1)))
    torch.testing.assert_close(found[0], torch.minimum(straight, across))
    assert found[0] > 3 * nearest.distances[0, 1]
    has_no_duplicates = [i for i in range(1, 6) if nearest.indices[i, 0] not in (3, 30, 31)]
    torch.testing.assert_close(found[has_no_duplicates], nearest.distances[has_no_duplicates, 1], rtol=0, atol=0)
