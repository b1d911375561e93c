"""Run a model once on a tensor that notes what is done to it: an `fx` graph with every value.

The model's own code runs with shapes, flags and default arguments as they are, so that control flow
on them is followed; only decisions on the *values* of the input are refused. Nothing outside the
copy of the model that is run is touched: other threads may call, train or convert meanwhile.
"""

from __future__ import annotations

import operator
import os
import sys
import types
import weakref
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from firstspike.networks.dispatch import LEAVES
from firstspike.networks.errors import ConversionError
from firstspike.networks.fx_graph import NOT_THE_USERS, calls_for_the_user, label, raised_at

_OPERATORS: dict[str, tuple[Any, bool]] = {  # method -> function, whether operands change places
    "__add__": (operator.add, False),
    "__radd__": (operator.add, True),
    "__iadd__": (operator.iadd, False),
    "__sub__": (operator.sub, False),
    "__rsub__": (operator.sub, True),
    "__isub__": (operator.isub, False),
    "__mul__": (operator.mul, False),
    "__rmul__": (operator.mul, True),
    "__imul__": (operator.imul, False),
    "__truediv__": (operator.truediv, False),
    "__rtruediv__": (operator.truediv, True),
    "__rdiv__": (operator.truediv, True),
    "__itruediv__": (operator.itruediv, False),
    "__matmul__": (operator.matmul, False),
    "__rmatmul__": (operator.matmul, True),
    "__neg__": (operator.neg, False),
    "__abs__": (operator.abs, False),
    "__pow__": (operator.pow, False),
    "__getitem__": (operator.getitem, False),
    "__setitem__": (operator.setitem, False),
}
_VALUES = {  # what turns the input's values into Python objects
    *("__bool__", "__float__", "__int__", "__index__", "__complex__", "__contains__", "item"),
    *("tolist", "numpy", "__array__", "is_nonzero", "equal", "allclose", "nonzero"),
}
_MAKES = {  # new tensors that take no more than shape and type from the input
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"),
    *("zeros_like", "ones_like", "full_like", "empty_like"),
}
_LIKE = {"to", "type_as", "expand_as", "view_as", "reshape_as"}  # the same of their second operand
_SEVERAL = tuple | list
_PLAIN = {type(None), bool, int, float, str, torch.dtype, torch.device}
_HELD = 2**18  # bytes of a value up to which it is kept


class Traced(Tensor):
    """A value of the model under way: what is done to it is noted by its recording."""

    recording: Recording
    raw: Tensor
    _node: fx.Node | None
    _make: Callable[[], fx.Node]
    _operands: list[Traced]  # of the call that gave this one and other results
    _stale: fx.Node  # what changed its memory through another view

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return _traced_in((args, kwargs))[0].recording.call(func, args, kwargs)


def _node_of(value: Traced) -> fx.Node:
    if value._node is None:
        value._node = value._make()
    return value._node


class Recording:
    """What a model did to a sample.

    Attributes:
        module: the model that was run; its layers are the targets of the graph's nodes.
        graph: nodes as `torch.fx` writes them.
        values: result of every node, or of those in `keep`. Large ones that the model does not
            return live no longer than in the model itself: of them only shape and type stay, as
            zeros without memory of their own.
        emptied: the nodes of which that is so.
        in_place: nodes that changed an operand instead of making a new tensor -> nodes whose
            values, still in use or the source of one of several results that is, are the same
            view of the same memory. Other views that overlap it may not be read any more.
        result: what the model returned, with nodes in place of what depends on the input.
    """

    def __init__(
        self, model: nn.Module, sample: Tensor, keep: Collection[str] | None = None
    ) -> None:
        self.module, self.keep = model, keep
        self.graph = fx.Graph()
        self.values: dict[fx.Node, Any] = {}
        self.emptied: set[fx.Node] = set()
        self.in_place: dict[fx.Node, list[fx.Node]] = {}
        self._in_use: list[weakref.ref[Traced]] = []
        with torch.no_grad(), torch.autocast(sample.device.type, enabled=False):
            self._run(sample)

    def _run(self, sample: Tensor) -> None:
        placeholder = self.graph.placeholder("x")
        self.values[placeholder] = sample
        layers = dict(_layers(self.module))
        for path, layer in layers.items():
            layer.forward = _Layer(self, path, layer.forward)
        try:
            result = self.module(self._traced(sample, placeholder))
        except ConversionError:
            raise
        except Exception as error:  # whatever the model's own code raises
            raise ConversionError(
                f"{type(self.module).__name__} cannot be traced{raised_at(error)}: {error}. Run it "
                "on a batch of the calibration images by itself first; it must take one tensor."
            ) from error
        finally:
            for layer in layers.values():
                del layer.__dict__["forward"]
        for value in _traced_in(result):
            self._check_fresh(value)
        self.output = result
        self.result = _mapped(lambda v: _node_of(v) if isinstance(v, Traced) else v, result)
        for value in _traced_in(result):
            self.values[_node_of(value)] = value.raw
            self.emptied.discard(_node_of(value))

    # ---- what values do -------------------------------------------------------------------------
    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run `func` on the values and note it, if it makes tensors of them."""
        name = getattr(func, "__name__", str(func))
        if isinstance(func, types.MethodWrapperType) and name == "__get__":
            return self._attribute(func, args)
        if name in _VALUES:
            raise ConversionError(
                f"{type(self.module).__name__} cannot be traced{_here()}: it decides on the values "
                f"of its input ({name}). Its `forward` may not depend on them (if, while, "
                "int(tensor)); move such code out of the model."
            )
        if name == "__iter__":
            return iter(torch.unbind(args[0]))
        made = name in _MAKES or (name in _LIKE and not isinstance(args[0], Traced))
        if made or name == "__format__" or name == "__repr__":
            return self._plain(func, args, kwargs)
        op, target, args = _target(func, name, args)
        return self._noted(op, target, args, kwargs, func)

    def call_layer(self, path: str, forward: Any, args: Any, kwargs: Any) -> Any:
        return self._noted("call_module", path, args, kwargs, forward)

    def _attribute(self, func: Any, args: Any) -> Any:
        """`x.shape` and its like as they are; `x.T`, `x.data` are noted."""
        result = self._plain(func, args, {})
        if not isinstance(result, Tensor):
            return result
        name = func.__self__.__name__
        if name == "data":
            return self._noted("call_method", "detach", args, {}, Tensor.detach)
        return self._noted("call_function", getattr, (args[0], name), {}, getattr)

    @staticmethod
    def _plain(func: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = _mapped(lambda v: v.raw if isinstance(v, Traced) else v, (args, kwargs))
        return func(*args, **kwargs)

    def _noted(self, op: str, target: Any, args: Any, kwargs: Any, func: Any) -> Any:
        as_nodes = _mapped(self._as_node, (tuple(args), dict(kwargs)))
        node = self.graph.create_node(op, target, *as_nodes)
        node.stack_trace = _frame()
        traced = _traced_in((args, kwargs))
        operands = [v.raw for v in traced]
        versions = [v._version for v in operands]
        try:
            call = func if op in ("call_module", "call_method") else target
            value = self._plain(call, args, kwargs)
        except ConversionError:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(v.shape)) for v in operands)
            raise ConversionError(
                f"{label(self.module, node)} cannot run on shape {shapes}: {error}. Pass "
                "calibration images of the shape the model was trained on."
            ) from error
        self._keep(node, value)
        if versions != [v._version for v in operands]:
            self.in_place[node] = self._changed(operands, value, node)
        if isinstance(value, _SEVERAL) and not isinstance(value, torch.Size):
            return self._several(value, node, traced)
        if isinstance(value, Tensor):
            return self._traced(value, node)
        if value is not None:  # a number or a size: nothing to note
            self.values.pop(node, None)
            self.graph.erase_node(node)
        return value

    def _keep(self, node: fx.Node, value: Any) -> None:
        """Keep the value of a node, or of a large one shape and type."""
        if self.keep is not None:
            if node.name in self.keep:
                self.values[node] = value
            return
        several = isinstance(value, _SEVERAL) and not isinstance(value, torch.Size)
        self.values[node] = _mapped(_outline, value) if several else _outline(value)
        if any(isinstance(v, Tensor) and v.nbytes > _HELD for v in (value if several else [value])):
            self.emptied.add(node)

    def _changed(self, operands: list[Tensor], value: Any, node: fx.Node) -> list[fx.Node]:
        """Nodes that are what `node` changed in place and now have its value.

        Whatever else overlaps that memory is marked. What was changed is what is returned, or the
        first operand (`x[...] = y`).
        """
        returned = isinstance(value, Tensor) and any(_same_view(value, o) for o in operands)
        written = value if returned else operands[0]
        in_use = [traced for ref in self._in_use if (traced := ref()) is not None]
        self._in_use = [weakref.ref(traced) for traced in in_use]
        memory = written.untyped_storage().data_ptr()
        near = [t for t in in_use if t.raw.untyped_storage().data_ptr() == memory]
        equal = [t for t in near if returned and _same_view(t.raw, written)]

        def follows(traced: Traced) -> bool:
            """Whether it is one of several results, not used yet, of what is known to change."""
            sources = traced._operands if traced._node is None else []
            return any(any(o is t for t in equal) or follows(o) for o in sources)

        for traced in near:
            known = any(traced is t for t in equal) or follows(traced)
            if not known and _overlap(traced.raw, written):
                traced._stale = node
        return [t._node for t in equal if t._node is not None]

    def _as_node(self, value: Any) -> Any:
        """The node of a tensor; one that does not depend on the input has a known value."""
        if isinstance(value, Traced):
            self._check_fresh(value)
            return _node_of(value)
        if not isinstance(value, Tensor):
            return value
        node = self.graph.create_node("call_function", torch.as_tensor, (), {}, "constant")
        self.values[node] = value
        return node

    def _check_fresh(self, value: Traced) -> None:
        """Refuse to read memory that was changed in place through another view of it."""
        if (changed := getattr(value, "_stale", None)) is not None:
            why = "it changes memory in place that is read again through another view"
            what = "change it out of place"
            raise ConversionError(
                f"{label(self.module, changed)} cannot be converted: {why}. To convert the model, "
                f"{what}.",
                *(why, what),
            )

    def _several(self, values: Any, node: fx.Node, operands: list[Traced]) -> Any:
        """Each of several results; those that are not used leave no trace.

        A result holds the operands: whoever uses it later asks what became of them.
        """

        def part(index: int, value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value

            def make() -> fx.Node:
                picked = self.graph.call_function(operator.getitem, (node, index))
                picked.stack_trace = node.stack_trace
                self._keep(picked, value)
                return picked

            made = self._traced(value, None, make)
            made._operands = operands
            return made

        parts = [part(i, v) for i, v in enumerate(values)]
        kind = type(values)
        return kind(parts) if kind in (tuple, list) or hasattr(kind, "n_fields") else kind(*parts)

    def _traced(
        self, raw: Tensor, node: fx.Node | None, make: Callable[[], fx.Node] | None = None
    ) -> Traced:
        traced: Traced = raw.as_subclass(Traced)
        traced.recording, traced.raw, traced._node = self, raw, node
        if make is not None:
            traced._make = make
        self._in_use.append(weakref.ref(traced))
        return traced


class _Layer:
    """Stands in for `forward` of a torch layer while a model is recorded."""

    def __init__(self, recording: Recording, path: str, forward: Any) -> None:
        self.recording, self.path, self.forward = recording, path, forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _traced_in((args, kwargs)):
            return self.recording.call_layer(self.path, self.forward, args, kwargs)
        return self.forward(*args, **kwargs)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """`pytree.tree_map`, ten times as quick for what arguments of layers mostly are."""
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([_mapped(change, v) for v in value])
    if kind is dict:
        return {k: _mapped(change, v) for k, v in value.items()}
    if kind in _PLAIN or isinstance(value, Tensor):
        return change(value)
    return pytree.tree_map(change, value)


def _traced_in(value: Any) -> list[Traced]:
    """The tensors under way in any structure of arguments or results."""
    kind = type(value)
    if kind is tuple or kind is list or kind is dict:
        return [t for v in (value.values() if kind is dict else value) for t in _traced_in(v)]
    leaves = [value] if kind in _PLAIN or isinstance(value, Tensor) else pytree.tree_leaves(value)
    return [v for v in leaves if isinstance(v, Traced)]


def _same_view(a: Tensor, b: Tensor) -> bool:
    return (a.data_ptr(), a.shape, a.stride()) == (b.data_ptr(), b.shape, b.stride())


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two views of one storage have an element in common."""
    if a.element_size() != b.element_size():  # seen as another type
        return True
    touched = torch.zeros(a.untyped_storage().nbytes() // a.element_size(), dtype=torch.bool)
    touched.as_strided(a.shape, a.stride(), a.storage_offset()).fill_(True)
    return bool(touched.as_strided(b.shape, b.stride(), b.storage_offset()).any())


def _outline(value: Any) -> Any:
    """A large tensor as zeros of its shape and type that share one element; others as they are."""
    if not isinstance(value, Tensor) or value.nbytes <= _HELD:
        return value
    return value.new_zeros(()).expand(value.shape)


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers that count as one operation, by path: those of `torch.nn`, and registered ones."""
    for path, layer in model.named_modules():
        home = type(layer).__module__
        own = isinstance(layer, nn.Sequential) or "forward" in layer.__dict__
        registered = type(layer) in LEAVES
        if path and (registered or (home.startswith("torch.nn.") and not own)):
            yield path, layer


def _target(func: Any, name: str, args: Any) -> tuple[str, Any, tuple[Any, ...]]:
    """How `fx` writes a call of `func`: (op, target, arguments)."""
    if name in _OPERATORS:
        target, swap = _OPERATORS[name]
        return "call_function", target, tuple(args[::-1]) if swap else tuple(args)
    if getattr(Tensor, name, None) is func:
        return "call_method", name, tuple(args)
    return "call_function", func, tuple(args)


def _frame() -> str:
    """The innermost line of the user's code, as in a traceback."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith((*NOT_THE_USERS, "<")):
            if calls_for_the_user(path):
                return ""
            import linecache

            code = linecache.getline(path, frame.f_lineno).strip()
            return f'File "{path}", line {frame.f_lineno}, in {frame.f_code.co_name}\n    {code}\n'
        frame = frame.f_back
    return ""


def _here() -> str:
    """Where the user's code is, " at file.py:12: code" or nothing."""
    parts = _frame().split('"')
    if len(parts) < 3:
        return ""
    line = parts[2].split(",")[1].split()[1]
    return f" at {os.path.basename(parts[1])}:{line}: {_frame().splitlines()[1].strip()}"
