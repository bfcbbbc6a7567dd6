"""Where rules' instances live: in this process. gateway/isolation/workshop.py is another place, with the same methods."""

from wasmtime import Module, WasmtimeError

from edge.host import _state
from edge.host._instance import Instance
from edge.host.engine import Unloadable, engine


class Resident(Instance):
    """An Instance, and what can be done with its state."""

    snapshot, restore, saved, take_over = _state.snapshot, _state.restore, _state.saved, _state.take_over


class Here:
    """This process."""

    def load(self, path, code, again):
        """Machine code in a file, mapped. Raises Unloadable when it is for another Wasmtime or another CPU."""
        try:
            return Module.deserialize_file(engine(), str(path))
        except WasmtimeError as error:
            raise Unloadable(str(error)) from None

    def load_bytes(self, code):
        """Likewise, machine code in memory."""
        try:
            return Module.deserialize(engine(), code)
        except WasmtimeError as error:
            raise Unloadable(str(error)) from None

    def instance(self, name, module, code, limits) -> Resident:
        """A new instance; raises RuleError."""
        return Resident(name, module, code, limits)
