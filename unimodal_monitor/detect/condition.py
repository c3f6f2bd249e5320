"""The null condition: what a network gets in place of a label or a prompt, so that no label reaches it."""

import inspect
from collections.abc import Mapping

import torch
from torch import nn

from unimodal_monitor.denoisers.network import forward_parameters, input_names
from unimodal_monitor.detect.attributes import class_names

LABEL_NAMES = ("class_labels", "y", "labels", "label", "classes", "class_cond")


class BatchCondition(dict[str, object]):
    """Conditions of the first image that the job trained on: a last resort."""


def null_condition(
    network: nn.Module, *, condition: Mapping[str, object] | None = None, null_class: int | None = None
) -> dict[str, object]:
    """Keyword arguments of the network that mean "no condition"; a class id is an int64 tensor of shape (1,).

    What the user gives is kept. A class without `null_class` is the extra row of the network's class embedding.
    """
    if isinstance(condition, str):
        raise ValueError(
            f"condition={condition!r}: need a dict of keyword arguments; 'batch' is for UnimodalMonitor alone"
        )
    kind = BatchCondition if isinstance(condition, BatchCondition) else dict
    given, names = kind(condition or {}), forward_parameters(network)
    label = next((name for name in LABEL_NAMES if name in names), None)
    if null_class is not None and label is None:
        name = type(network).__name__
        raise ValueError(f"null_class={null_class}, but the forward of {name} takes none of {', '.join(LABEL_NAMES)}")
    if label is not None and label not in given:
        num_rows, null_row = _label_table(network)
        class_id = null_row if null_class is None else null_class
        if class_id is None and num_rows is not None:
            raise ValueError(
                f"null_class: {type(network).__name__} takes {label} and has no row for 'no class'; true labels would"
                f" leak into the features; give null_class= one id for all images, or condition={{{label!r}: ...}}"
            )
        if null_class is not None and num_rows is not None and not 0 <= null_class < num_rows:
            raise ValueError(f"null_class={null_class}, but the network's table has classes 0 to {num_rows - 1}")
        given |= {} if class_id is None else {label: torch.tensor([class_id])}
    if names:
        _check_names(network, given)
    return given


def _label_table(network: nn.Module) -> tuple[int | None, int | None]:
    """Number of rows of the network's class embedding, and its null row; None for what is not known."""
    if "DiTTransformer2DModel" in class_names(network):
        null_row = int(network.config.num_embeds_ada_norm)  # type: ignore[union-attr, arg-type]
        return null_row + 1, null_row
    if isinstance(table := getattr(network, "class_embedding", None), nn.Embedding):
        return table.num_embeddings, None
    for module in network.modules():
        num_classes, table = getattr(module, "num_classes", None), getattr(module, "embedding_table", None)
        if isinstance(num_classes, int) and isinstance(table, nn.Embedding):
            return table.num_embeddings, num_classes if table.num_embeddings > num_classes else None
    num_classes = getattr(network, "num_classes", None)
    return (num_classes, None) if isinstance(num_classes, int) and num_classes > 0 else (None, None)


def _check_names(network: nn.Module, given: Mapping[str, object]) -> None:
    parameters = forward_parameters(network)
    forward, signature = f"the forward of {type(network).__name__}", inspect.signature(network.forward)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    unknown = [name for name in given if name not in parameters and not takes_any]
    if unknown:
        raise ValueError(f"condition has {', '.join(unknown)}; {forward} takes {', '.join(parameters)}")
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    missing = [name for name in required if name not in (*input_names(network), *given)]
    if missing:
        prompt = " (the embedding of the empty prompt, (1, tokens, width))" * ("encoder_hidden_states" in missing)
        raise ValueError(
            f"condition: {forward} needs {', '.join(missing)}; give condition={{{missing[0]!r}: ...}} with the value"
            f" that means no condition{prompt}"
        )
