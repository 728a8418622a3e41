// The Python sources of the adapters, as NUL-terminated texts. Paths are from the repository root.

.macro embed name, file
    .globl  kvcached_source_\name
    .hidden kvcached_source_\name
    .type   kvcached_source_\name, @object
kvcached_source_\name:
    .incbin "\file"
    .byte   0
    .size   kvcached_source_\name, . - kvcached_source_\name
.endm

    .section .rodata
    embed bootstrap, "shim/adapters/bootstrap.py"
    embed client, "shim/adapters/client.py"
    embed layout, "shim/adapters/layout.py"
    embed balloon, "shim/adapters/balloon.py"
    embed seams, "shim/adapters/seams.py"
    embed vllm_cache, "shim/adapters/vllm_cache.py"
    embed vllm, "shim/adapters/vllm.py"

    .section .note.GNU-stack, "", @progbits
