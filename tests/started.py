"""What a device is given to do, counted without one."""

from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = {"alias", "as_strided", "detach", "expand", "permute", "select", "slice", "split", "squeeze", "t", "unsqueeze",
         "view"}  # fmt: skip


class Started(TorchDispatchMode):
    """Counts the operations: on a GPU the host starts a kernel or more for each. A view is none."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ not in VIEWS
        return function(*args, **(kwargs or {}))
