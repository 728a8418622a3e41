// The Python sources of the adapters, as NUL-terminated texts. Paths are from the repository root.

.macro embed name
    .globl  kvcached_source_\name
    .hidden kvcached_source_\name
    .type   kvcached_source_\name, @object
kvcached_source_\name:
    .incbin "shim/adapters/\name\().py"
    .byte   0
    .size   kvcached_source_\name, . - kvcached_source_\name
.endm

    .section .rodata
    embed bootstrap
#define MODULE(name) embed name
#include "shim/adapters/modules.inc"

    .section .note.GNU-stack, "", @progbits
