"""Tensors without contents: shape, strides and an address, with torch's rules for views."""


class Dtype:
    def __init__(self, name, itemsize):
        self.name = name
        self.itemsize = itemsize


int8 = Dtype("int8", 1)
bfloat16 = Dtype("bfloat16", 2)


def contiguous(shape):
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


class Tensor:
    def __init__(self, address, shape, dtype, strides=None):
        self.address = address
        self.shape = tuple(shape)
        self.dtype = dtype
        self.strides = contiguous(self.shape) if strides is None else tuple(strides)

    def data_ptr(self):
        return self.address

    def element_size(self):
        return self.dtype.itemsize

    def stride(self):
        return self.strides

    def numel(self):
        total = 1
        for n in self.shape:
            total *= n
        return total

    def view(self, *shape):
        if len(shape) == 1 and isinstance(shape[0], Dtype):
            ratio = shape[0].itemsize // self.dtype.itemsize
            strides = [s // ratio for s in self.strides[:-1]] + [1]
            return Tensor(self.address, self.shape[:-1] + (self.shape[-1] // ratio,), shape[0],
                          strides)
        if len(shape) == 1 and isinstance(shape[0], tuple):
            shape = shape[0]
        shape = list(shape)
        if -1 in shape:
            known = 1
            for n in shape:
                known *= n if n != -1 else 1
            shape[shape.index(-1)] = self.numel() // known
        if self.strides == contiguous(self.shape):
            return Tensor(self.address, shape, self.dtype)
        # Only what packed layouts need: the first dimension stays.
        assert shape[0] == self.shape[0]
        return Tensor(self.address, shape, self.dtype,
                      (self.strides[0],) + contiguous(shape[1:]))

    def __getitem__(self, index):
        rows, columns = index
        assert rows == slice(None)
        return Tensor(self.address + columns.start * self.dtype.itemsize,
                      (self.shape[0], columns.stop - columns.start), self.dtype, self.strides)

    def permute(self, *order):
        return Tensor(self.address, [self.shape[i] for i in order], self.dtype,
                      [self.strides[i] for i in order])
