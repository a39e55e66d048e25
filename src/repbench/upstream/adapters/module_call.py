"""The call of a module behind `py:`: the `forward` that is expected, the values that it may return, and hints.

Nothing is tried out: a signature is read when the module is built, and a hint is given where a call has failed.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from repbench.errors import PluginError
from repbench.upstream.contract import HiddenStates, UpstreamInfo

_PAGE = "see docs/which-way.md"
_NOT_LENGTHS = ("mask", "rate", "label", "target")
"""Parts of the names of second arguments that are no lengths, whatever their number."""

_RELATIVE_LENGTHS = ("wav_len", "wav_lens", "rel_len", "rel_lens", "rel_lengths", "relative_lengths")
"""Second arguments in the convention of SpeechBrain: lengths as fractions of the longest waveform."""

_VALID = "torch.arange(waveforms.shape[1], device=lengths.device) {} lengths[:, None]"  # (B, T) bool
_SHOWN_CHARACTERS = 200

Hint = tuple[str, str]
"""A remedy, and lines to paste for it."""


def check_forward(module: nn.Module, spec: str, *, batch_invariant: bool) -> None:
    """Check by its signature that a module's `forward` takes (waveforms, lengths).

    Other names of the two arguments are accepted unless they mean something else: a mask, relative lengths, a rate, or
    an option with a default.

    Args:
        module: The module.
        spec: `module:attribute`, for the error.
        batch_invariant: As declared; a module that gets padded batches needs the lengths.

    Raises:
        PluginError: It takes something else; shows the signature and a wrapper.
    """
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):  # compiled code may have none
        return
    if _takes_lengths(signature):
        return
    found = signature.replace(
        parameters=[each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
    what = f"`py:{spec}` is called as `forward(waveforms, lengths)`, but its own is `forward{_short(found)}`"
    name = _free_name(module)
    source = spec.partition(":")[0].rpartition(".")[2]
    do = f"Wrap it as below and name its declaration `{source}_{name}.info.yaml`; {_PAGE}"
    raise PluginError(what, key=f"py:{spec}", do=do, block=_wrapper(module, _arguments(signature, batch_invariant)))


def _takes_lengths(signature: inspect.Signature) -> bool:
    try:
        signature.bind("waveforms", "lengths")
    except TypeError:
        return False
    positional = _positional(signature)
    if len(positional) < 2:  # `*args`
        return True
    first, second = positional[:2]
    name = second.name.lower()
    if _is_length(first.name) and not _is_length(name):
        return False
    if name in _RELATIVE_LENGTHS or any(part in name for part in _NOT_LENGTHS):
        return False
    return second.default is inspect.Parameter.empty or "len" in name or "num_samples" in name


def _positional(signature: inspect.Signature) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each for each in signature.parameters.values() if each.kind in kinds]


def _is_length(name: str) -> bool:
    return (
        name.lower() not in _RELATIVE_LENGTHS
        and re.search(r"(len|lens|lengths?|num_samples)$", name.lower()) is not None
    )


def _arguments(signature: inspect.Signature, batch_invariant: bool) -> str:
    """The arguments of the wrapped `forward`, as code; `...` and a comment for those whose meaning is not known.

    A module that is not batch-invariant gets each utterance alone, so it needs neither mask nor lengths.
    """
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [each for each in signature.parameters.values() if each.kind not in variadic]
    sound = next((each for each in parameters if not _is_length(each.name)), None)
    arguments: list[str] = []
    unknown: list[str] = []
    by_keyword = False
    for each in parameters:
        value = "waveforms" if each is sound else _value_of(each, batch_invariant)
        if value == "...":
            unknown.append(each.name)
        by_keyword = by_keyword or value not in _BY_POSITION or each.kind is inspect.Parameter.KEYWORD_ONLY
        if value is not None:
            arguments.append(f"{each.name}={value}" if by_keyword else value)
    return f"{', '.join(arguments)})" + (f"  # {', '.join(unknown)}" if unknown else "")


_BY_POSITION = ("waveforms", "lengths", "...")
"""Values of arguments that are given by position, as long as none before them is by keyword or left out."""


def _value_of(parameter: inspect.Parameter, batch_invariant: bool) -> str | None:
    """The value of an argument other than the waveforms, as code; None where its default is taken."""
    name = parameter.name.lower()
    is_optional = parameter.default is not inspect.Parameter.empty
    value = None if is_optional else "..."
    if name == "mask" and parameter.default is True:
        value = "False"  # fairseq masks spans at random, in eval mode too
    elif name == "features_only" and parameter.default is False:
        value = "True"
    elif is_optional and not batch_invariant:
        value = None
    elif name == "padding_mask":
        value = _VALID.format(">=")
    elif "mask" in name:
        value = _VALID.format("<")
    elif name in _RELATIVE_LENGTHS:
        value = "lengths / waveforms.shape[1]"
    elif _is_length(name):
        value = "lengths"
    return value


def _free_name(module: nn.Module) -> str:
    """A name for a wrapper, other than that of the class that it wraps."""
    return "WrappedEncoder" if type(module).__name__ == "MyEncoder" else "MyEncoder"


def _wrapper(module: nn.Module, arguments: str, taken: str = "") -> str:
    """The lines of a wrapper; `arguments` are those of the call, with the bracket that closes it."""
    call, bracket, comment = arguments.rpartition(")")
    return "\n".join(
        (
            f"class {_free_name(module)}({type(module).__name__}):",
            "    def forward(self, waveforms, lengths):",
            f"        return super().forward({call}{bracket}{taken}{comment}",
        )
    )


def layers_of(returned: object, module: nn.Module, name: str) -> Tensor:
    """The value that a module returned as (L, B, F, D).

    Args:
        returned: (B, F, D), (L, B, F, D), a list or tuple of (B, F, D) of one shape, or `HiddenStates`.
        module: The module, for the hint.
        name: Its name, for the error.

    Raises:
        PluginError: It is something else; shows how to take the hidden states out of it.
    """
    if isinstance(returned, HiddenStates):
        return returned.layers
    # A list of tensors of unequal shapes falls through to the error: they are no layers.
    if isinstance(returned, list | tuple) and returned and all(_is_layer(each) for each in returned):
        if len({each.shape for each in returned}) == 1:
            return torch.stack(list(returned))  # L times (B, F, D) -> (L, B, F, D)
    elif _is_layer(returned):
        assert isinstance(returned, Tensor)
        return returned[None]  # (B, F, D) -> (1, B, F, D)
    elif isinstance(returned, Tensor) and returned.ndim == 4:
        return returned
    what = "The module must return a tensor (B, F, D) or (L, B, F, D), a list of (B, F, D) alike, or HiddenStates"
    do, block = _hint_of_value(returned, module)
    raise PluginError(f"{what}, but returned {_described(returned)}", key=name, do=do, block=block)


def vectors_of(returned: object, info: UpstreamInfo, num_utterances: int) -> Tensor:
    """The value that a module of one vector an utterance returned as (L, B, 1, D).

    Args:
        returned: (B, D), (L, B, D), a list or tuple of (B, D), or `HiddenStates` of one frame.
        info: The declaration.
        num_utterances: B.

    Raises:
        PluginError: It is something else.
    """
    value: Any = returned.layers if isinstance(returned, HiddenStates) else returned
    is_list = isinstance(value, list | tuple) and value and all(isinstance(each, Tensor) for each in value)
    if is_list and len({each.shape for each in value}) == 1:
        value = torch.stack(list(value))  # L times (B, D) -> (L, B, D)
    expected = (len(info.layer_names), num_utterances, info.width)
    if isinstance(value, Tensor) and value.ndim == 2:
        value = value[None]  # (B, D) -> (1, B, D)
    if isinstance(value, Tensor) and value.ndim == 3:
        value = value[:, :, None]  # (L, B, D) -> (L, B, 1, D)
    if isinstance(value, Tensor) and tuple(value.shape) == (*expected[:2], 1, expected[2]):
        return value
    what = (
        f"The declaration promises one vector an utterance, (L, B, D) = {expected}, but the module returned "
        f"{_described(returned)}"
    )
    do = "Return (B, D), or correct layer_names or width; for hidden states of frames, leave `kind` out"
    raise PluginError(what, key=info.name, do=do)


def _is_layer(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 3


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with the keys {_short(', '.join(map(str, value)))}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {_short(', '.join(_described(each) for each in value))}"
    return type(value).__name__


def _hint_of_value(value: object, module: nn.Module) -> Hint:
    """A hint for a returned value that is no tensor of hidden states: the item to take, or another input shape."""
    if isinstance(value, Mapping):
        key = next((key for key, item in value.items() if _is_layer(item)), None)
        taken = None if key is None else f"[{key!r}]"
    elif isinstance(value, list | tuple):
        index = next((index for index, item in enumerate(value) if _is_layer(item)), None)
        taken = None if index is None else f"[{index}]"
    else:
        taken = None
    if taken is not None:
        do = f"End its `forward` with `return …{taken}`, or wrap it as below and {_declared(module)}; {_PAGE}"
        return do, _wrapper(module, "waveforms, lengths)", taken)
    return channel_hint(module) or (f"Return hidden states of all frames; {_PAGE}", "")


def _declared(module: nn.Module) -> str:
    source = type(module).__module__.rpartition(".")[2]
    return f"name its declaration `{source}_{_free_name(module)}.info.yaml`"


def failure_hint(module: nn.Module, error: Exception) -> Hint | None:
    """A hint for a module whose call failed: arguments the other way round, or one channel; None: neither is likely."""
    # torch's words for integers where a layer takes samples: the first argument was used as the sound, or the second
    if re.search(r"\blong\b|LongTensor|\bint\b", str(error), re.IGNORECASE):
        do = f"If it takes the lengths first, wrap it as below and {_declared(module)}; {_PAGE}"
        return do, _wrapper(module, "lengths, waveforms)")
    return channel_hint(module)


def channel_hint(module: nn.Module) -> Hint | None:
    """A wrapper for a module that takes (B, 1, T): one whose first convolution has one input channel; else None."""
    first = next((each for each in module.modules() if isinstance(each, nn.Conv1d)), None)
    if first is None or first.in_channels != 1:
        return None
    # A wrapped class takes (waveforms, lengths) by now, or one argument more than its parent.
    do = f"If it takes (B, 1, T), wrap it as below and {_declared(module)}; {_PAGE}"
    return do, _wrapper(module, "waveforms[:, None], lengths)")


def transposed_hint(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """An addition to the error of a shape: hidden states (…, D, F) need a transposition."""
    swapped = (*expected[:-2], expected[-1], expected[-2])
    return "; for (B, D, F) return `states.transpose(1, 2)`" if found == swapped != expected else ""


def _short(text: object) -> str:
    whole = str(text)
    return whole if len(whole) <= _SHOWN_CHARACTERS else f"{whole[:_SHOWN_CHARACTERS]}…"
