"""Tensors without contents: shape, strides and an address, with torch's rules for views."""
import types


class Dtype:
    def __init__(self, name, itemsize):
        self.name = name
        self.itemsize = itemsize


int8 = Dtype("int8", 1)
float8 = Dtype("float8_e4m3fn", 1)
bfloat16 = Dtype("bfloat16", 2)


class Shape(tuple):
    def numel(self):
        total = 1
        for n in self:
            total *= n
        return total

    def __getitem__(self, index):
        found = super().__getitem__(index)
        return Shape(found) if isinstance(index, slice) else found


class Storage:
    """The memory under tensors that are views of each other."""

    def __init__(self, address, size):
        self.address, self.size = address, size

    def data_ptr(self):
        return self.address

    def nbytes(self):
        return self.size


def contiguous(shape):
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


class Tensor:
    def __init__(self, address, shape, dtype, strides=None, storage=None):
        self.address = address
        self.shape = Shape(shape)
        self.dtype = dtype
        self.strides = contiguous(self.shape) if strides is None else tuple(strides)
        assert len(self.strides) == len(self.shape)
        self.storage = storage or Storage(address, self.numel() * dtype.itemsize)

    def _view(self, shape, strides, dtype=None, address=None):
        return Tensor(self.address if address is None else address, shape, dtype or self.dtype,
                      strides, self.storage)

    def data_ptr(self):
        return self.address

    def untyped_storage(self):
        return self.storage

    def storage_offset(self):
        return (self.address - self.storage.address) // self.dtype.itemsize

    def element_size(self):
        return self.dtype.itemsize

    def stride(self, dim=None):
        return self.strides if dim is None else self.strides[dim]

    @property
    def ndim(self):
        return len(self.shape)

    def numel(self):
        return self.shape.numel()

    def view(self, *shape):
        if len(shape) == 1 and isinstance(shape[0], Dtype):
            return self._as_dtype(shape[0])
        if len(shape) == 1 and isinstance(shape[0], tuple):
            shape = shape[0]
        shape = list(shape)
        if -1 in shape:
            known = 1
            for n in shape:
                known *= n if n != -1 else 1
            shape[shape.index(-1)] = self.numel() // known
        assert Shape(shape).numel() == self.numel()
        if self.strides == contiguous(self.shape):
            return self._view(shape, None)
        # Only what packed layouts need: the first dimension stays, the others are contiguous.
        assert shape[0] == self.shape[0] and self.strides[1:] == contiguous(self.shape[1:])
        return self._view(shape, (self.strides[0],) + contiguous(shape[1:]))

    def _as_dtype(self, dtype):
        old, new = self.dtype.itemsize, dtype.itemsize
        assert self.strides[-1] == 1 and not self.shape[-1] * old % new
        assert all(not s * old % new for s in self.strides[:-1])
        return self._view(self.shape[:-1] + (self.shape[-1] * old // new,),
                          [s * old // new for s in self.strides[:-1]] + [1], dtype)

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        address, shape, strides = self.address, [], []
        for dim, part in enumerate(index + (slice(None),) * (self.ndim - len(index))):
            step, n = self.strides[dim], self.shape[dim]
            first = part if isinstance(part, int) else part.start or 0
            address += first * step * self.dtype.itemsize
            if not isinstance(part, int):
                shape.append((n if part.stop is None else min(part.stop, n)) - first)
                strides.append(step)
        return self._view(shape, strides, address=address)

    def permute(self, *order):
        return self._view([self.shape[i] for i in order], [self.strides[i] for i in order])

    def transpose(self, a, b):
        order = list(range(self.ndim))
        order[a], order[b] = b, a
        return self.permute(*order)

    def as_strided(self, size, stride, storage_offset=None):
        address = self.address if storage_offset is None else (
            self.storage.address + storage_offset * self.dtype.itemsize)
        return self._view(size, stride, address=address)

    def as_strided_(self, size, stride):
        self.shape, self.strides = Shape(size), tuple(stride)
        return self


def functions(allocate):
    """Functions of torch by name, on memory from `allocate(bytes)`."""
    def zeros(size, dtype, device):
        shape = size if isinstance(size, tuple) else (size,)
        return Tensor(allocate(Shape(shape).numel() * dtype.itemsize), shape, dtype)

    def empty(shape, device=None):
        return types.SimpleNamespace(stride=lambda: contiguous(shape))

    return {"zeros": zeros, "empty": empty, "int8": int8, "bfloat16": bfloat16,
            "as_strided": lambda tensor, size, stride, storage_offset=None:
                tensor.as_strided(size, stride, storage_offset)}
