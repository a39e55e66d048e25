"""The call of a module behind `py:`: the `forward` that is expected, the values that it may return, and hints.

Nothing is tried out: a signature is read when the module is built, and a hint is given where a call has failed.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from repbench.errors import PluginError
from repbench.upstream.contract import HiddenStates

_PAGE = "see docs/which-way.md"
_NOT_LENGTHS = ("mask", "rate", "label", "target")
"""Parts of the names of second arguments that are no lengths, whatever their number."""

_RELATIVE_LENGTHS = ("wav_len", "wav_lens", "rel_len", "rel_lens", "rel_lengths", "relative_lengths")
"""Second arguments in the convention of SpeechBrain: lengths as fractions of the longest waveform."""

_VALID = "torch.arange(waveforms.shape[1], device=lengths.device) {} lengths[:, None]"  # (B, T) bool
_SHOWN_CHARACTERS = 200


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
    do = f"Wrap it: {_wrapper(module, _arguments(signature, batch_invariant))}; {_PAGE}"
    raise PluginError(what, key=f"py:{spec}", do=do)


def _takes_lengths(signature: inspect.Signature) -> bool:
    try:
        signature.bind("waveforms", "lengths")
    except TypeError:
        return False
    positional = _positional(signature)
    if len(positional) < 2:  # `*args`
        return True
    second = positional[1]
    name = second.name.lower()
    if name in _RELATIVE_LENGTHS or any(part in name for part in _NOT_LENGTHS):
        return False
    return second.default is inspect.Parameter.empty or "len" in name or "num_samples" in name


def _positional(signature: inspect.Signature) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each for each in signature.parameters.values() if each.kind in kinds]


def _arguments(signature: inspect.Signature, batch_invariant: bool) -> str:
    """The arguments of the wrapped `forward`, as code.

    A module that is not batch-invariant gets each utterance alone, so it needs neither mask nor lengths.
    """
    arguments = ["waveforms"]
    for each in _positional(signature)[1:]:
        name = each.name.lower()
        if name == "mask" and each.default is True:
            arguments.append(f"{each.name}=False")  # fairseq masks spans at random, in eval mode too
        elif name == "features_only" and each.default is False:
            arguments.append(f"{each.name}=True")
        elif not batch_invariant and each.default is not inspect.Parameter.empty:
            continue
        elif name == "padding_mask":
            arguments.append(f"{each.name}={_VALID.format('>=')}")
        elif "mask" in name:
            arguments.append(f"{each.name}={_VALID.format('<')}")
        elif name in _RELATIVE_LENGTHS:
            arguments.append(f"{each.name}=lengths / waveforms.shape[1]")
    return ", ".join(arguments)


def _wrapper(module: nn.Module, arguments: str, taken: str = "") -> str:
    lines = (
        f"class MyEncoder({type(module).__name__}):",
        "    def forward(self, waveforms, lengths):",
        f"        return super().forward({arguments}){taken}",
    )
    return " ".join(f"`{line}`" for line in lines)


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
    raise PluginError(f"{what}, but returned {_described(returned)}", key=name, do=_hint_of_value(returned, module))


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


def _hint_of_value(value: object, module: nn.Module) -> str:
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
        return f"Take the item in a wrapper: {_wrapper(module, 'waveforms, lengths', taken)}; {_PAGE}"
    return channel_hint(module) or f"Return hidden states of all frames; {_PAGE}"


def channel_hint(module: nn.Module) -> str | None:
    """A wrapper for a module that takes (B, 1, T): one whose first convolution has one input channel; else None."""
    first = next((each for each in module.modules() if isinstance(each, nn.Conv1d)), None)
    if first is None or first.in_channels != 1:
        return None
    # A wrapped class takes (waveforms, lengths) by now, or one argument more than its parent.
    return f"If it takes (B, 1, T), wrap it: {_wrapper(module, 'waveforms[:, None], lengths')}; {_PAGE}"


def transposed_hint(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """An addition to the error of a shape: hidden states (…, D, F) need a transposition."""
    swapped = (*expected[:-2], expected[-1], expected[-2])
    return "; for (B, D, F) return `states.transpose(1, 2)`" if found == swapped != expected else ""


def _short(text: object) -> str:
    whole = str(text)
    return whole if len(whole) <= _SHOWN_CHARACTERS else f"{whole[:_SHOWN_CHARACTERS]}…"
