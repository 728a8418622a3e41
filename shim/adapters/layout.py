"""Where the blocks of a KV cache lie: from tensors to segments."""


class Unknown(Exception):
    """A layout that cannot be told apart into blocks."""


def allocations(tensors):
    """The distinct pieces of memory under `tensors`, which may be views: {address: bytes}."""
    storages = (tensor.untyped_storage() for tensor in tensors if tensor.numel())
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def segments(pieces, views, blocks):
    """Segments (base, stride, block_bytes) of `views`, the tensors that the kernels use, which lie
    in the allocations `pieces`.

    An allocation in which every view steps by the same distance from block to block, and which is
    that distance times the number of blocks, is block-major: one segment covers it, padding and
    all layers packed into it included. Otherwise (layers, K and V or heads outermost) each view
    gives one segment for each run of blocks.
    """
    by_piece = {}
    for view in views:
        start, _ = _extent(view)
        piece = _piece_of(pieces, view)
        by_piece.setdefault(piece, []).append((start, *_runs(view, blocks)))
    found = []
    for piece in sorted(by_piece):
        size = pieces[piece]
        runs = by_piece[piece]
        strides = {stride for _, stride, _, _ in runs}
        stride = next(iter(strides))
        if len(strides) == 1 and stride * blocks == size:
            found.append((piece, stride, stride))
            continue
        found.extend(_joined({(start + offset, stride, block_bytes)
                              for start, stride, block_bytes, offsets in runs
                              for offset in offsets}))
    for base, stride, block_bytes in found:
        if block_bytes > stride:
            raise Unknown("blocks overlap")
        piece = max(p for p in pieces if p <= base)
        if base + (blocks - 1) * stride + block_bytes > piece + pieces[piece]:
            raise Unknown("blocks reach beyond their allocation")
    if set(by_piece) != set(pieces):
        raise Unknown("an allocation that no layer uses")
    return found


def _joined(segments):
    """The same with parts of one block, side by side or over each other, as one segment."""
    found = []
    for base, stride, block_bytes in sorted(segments, key=lambda s: (s[1], s[0])):
        if found and found[-1][1] == stride:
            first, _, before = found[-1]
            together = max(before, base + block_bytes - first)
            if together <= stride:
                found[-1] = (first, stride, together)
                continue
        found.append((base, stride, block_bytes))
    return sorted(found)


def _extent(view):
    """First and last address (exclusive) that a view can touch."""
    span = sum((n - 1) * s for n, s in zip(view.shape, view.stride())) + 1
    start = view.data_ptr()
    return start, start + span * view.element_size()


def _piece_of(pieces, view):
    start, end = _extent(view)
    for address, size in pieces.items():
        if address <= start and end <= address + size:
            return address
    raise Unknown("a layer's cache lies outside of the allocations")


def _runs(view, blocks):
    """Stride of a block, bytes of it, and the offsets of the runs of blocks within the view.

    A kernel may cut a block into k smaller ones: the dimension then has k times as many entries.
    """
    item = view.element_size()
    dims = [(n, s * item) for n, s in zip(view.shape, view.stride())]
    # Of several dimensions whose size fits, the first two are the ones that engines use for blocks
    # (K and V may come first), and a factor of one is likelier than a cut.
    candidates = [(dims[d][0] // blocks, d) for d in range(min(2, len(dims)))
                  if dims[d][0] >= blocks and dims[d][0] % blocks == 0]
    if not candidates:
        raise Unknown("no dimension of %s is %d blocks" % (tuple(view.shape), blocks))
    cut, block_dim = min(candidates)
    step = dims[block_dim][1]
    stride = step * cut
    inner = (cut - 1) * step + item
    offsets = [0]
    for d, (n, s) in enumerate(dims):
        if d == block_dim or n == 1:
            continue
        if s < stride:
            inner += (n - 1) * s
        else:
            offsets = [o + i * s for o in offsets for i in range(n)]
    if len(offsets) > 64:
        raise Unknown("%d runs of blocks in one tensor" % len(offsets))
    return stride, inner, offsets
