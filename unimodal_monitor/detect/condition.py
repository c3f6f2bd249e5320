"""The null condition: what a network is given in place of a label or a prompt, so that no label reaches it."""

import inspect
from collections.abc import Mapping

import torch
from torch import nn

from unimodal_monitor.denoisers.network import forward_parameters, input_names
from unimodal_monitor.detect.attributes import class_names

LABEL_NAMES = ("class_labels", "y", "labels", "label", "classes", "class_cond")


def null_condition(
    network: nn.Module, *, condition: Mapping[str, object] | None = None, null_class: int | None = None
) -> dict[str, object]:
    """Keyword arguments that condition the network on nothing.

    Args:
        network: the unwrapped network.
        condition: arguments given by the user; they stand.
        null_class: the class id that means "no class"; None to take the row that the network keeps for it.

    Returns:
        Arguments by name; a class id is an int64 tensor of shape (1,), to be expanded to the batch.

    Raises:
        ValueError: if the network wants a condition of which the null value is not known, or `condition` names an
            argument that it does not have.
    """
    given = dict(condition or {})
    names = forward_parameters(network)
    label = next((name for name in LABEL_NAMES if name in names), None)
    if null_class is not None and label is None:
        raise ValueError(f"null_class={null_class}, but {_describe(network)} has none of {', '.join(LABEL_NAMES)}")
    if label is not None and label not in given:
        class_id = _class_id(network, null_class, label)
        given |= {} if class_id is None else {label: torch.tensor([class_id])}
    _check_names(network, given)
    return given


def _class_id(network: nn.Module, null_class: int | None, label: str) -> int | None:
    """The null class, None if the network does well without a label."""
    num_rows, null_row = _label_table(network)
    if null_class is not None:
        if num_rows is not None and not 0 <= null_class < num_rows:
            raise ValueError(f"null_class={null_class}, but the network's table has classes 0 to {num_rows - 1}")
        return null_class
    if null_row is None and num_rows is not None:
        raise ValueError(
            f"{type(network).__name__} takes {label} and keeps no row for 'no class', and the true one would leak into"
            f" the features: give null_class= one id for all images, or condition={{{label!r}: ...}}"
        )
    return null_row


def _label_table(network: nn.Module) -> tuple[int | None, int | None]:
    """Rows of the network's class embedding and the row that is certainly null; None for what is not there."""
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
    if not parameters:
        return
    takes_any = inspect.Parameter.VAR_KEYWORD in {
        parameter.kind for parameter in inspect.signature(network.forward).parameters.values()
    }
    unknown = [name for name in given if name not in parameters and not takes_any]
    if unknown:
        raise ValueError(f"condition has {', '.join(unknown)}; {_describe(network)} takes {', '.join(parameters)}")
    required = [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    missing = [name for name in required if name not in (*input_names(network), *given)]
    if missing:
        prompt = " (for a prompt: the empty prompt's embedding, (1, tokens, width))"
        raise ValueError(
            f"{_describe(network)} needs {', '.join(missing)}: give condition={{{missing[0]!r}: ...}}, the value that"
            f" means no condition{prompt if missing[0] == 'encoder_hidden_states' else ''}"
        )


def _describe(network: nn.Module) -> str:
    return f"the forward of {type(network).__name__}"
