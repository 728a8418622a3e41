/* The exported symbols, and dlsym. None of them knows the arguments of what it stands for, and all
 * leave by a jump, or with the answer of a call that is made for them: to the caller it looks as if the
 * function behind had been called directly. */

#if !defined(__x86_64__)
#error "the doors are written for x86-64"
#endif

        .text
        .hidden kvcached_watched
        .hidden kvcached_work
        .hidden kvcached_dlsym

        .macro begin symbol
        .p2align 4
        .type   \symbol, @function
\symbol:
        .cfi_startproc
        endbr64
        .endm

        .macro end symbol
        .cfi_endproc
        .size   \symbol, . - \symbol
        .endm

        /* Exported under the symbol's name; under the second one only the table refers to it. */
        .macro export symbol
        .globl  \symbol
        .globl  kvcached_exported_\symbol
        .hidden kvcached_exported_\symbol
        .set    kvcached_exported_\symbol, \symbol
        .globl  kvcached_looked_up_\symbol
        .hidden kvcached_looked_up_\symbol
        .endm

        /* A hook: kvcached_hook_SYMBOL holds the two functions with the right arguments. */
        .macro hook symbol
        export  \symbol
        .hidden kvcached_hook_\symbol
        begin   \symbol
        jmp     *kvcached_hook_\symbol(%rip)
        end     \symbol
        begin   kvcached_looked_up_\symbol
        jmp     *kvcached_hook_\symbol+8(%rip)
        end     kvcached_looked_up_\symbol
        .endm

        /* Work for the GPU. The common case costs two loads: nothing is watched, target known. */
        .macro work_door name, behind, offset
        begin   \name
        movq    \behind+\offset(%rip), %rax
        cmpq    $0, kvcached_watched(%rip)
        jne     1f
        testq   %rax, %rax
        je      1f
        jmp     *%rax
1:      leaq    \behind(%rip), %rax
        movl    $\offset, %r11d
        jmp     work_slowly
        end     \name
        .endm

        .macro evidence symbol
        export  \symbol
        .hidden kvcached_behind_\symbol
        work_door \symbol, kvcached_behind_\symbol, 0
        work_door kvcached_looked_up_\symbol, kvcached_behind_\symbol, 8
        .endm

        .macro save register
        pushq   \register
        .cfi_adjust_cfa_offset 8
        .endm
        .macro restore register
        popq    \register
        .cfi_adjust_cfa_offset -8
        .endm

        /* rax: what is behind the door; r11: where in it the target's address is. The saved registers,
         * the return address and the arguments on the stack make one array (hooks/touches.hpp).
         * Nothing on the list takes floating-point arguments. kvcached_work answers where to jump, or the
         * result (rdx not 0). */
        begin   work_slowly
        save    %rdi
        save    %rsi
        save    %rdx
        save    %rcx
        save    %r8
        save    %r9
        movq    %rax, %rdi
        leaq    (%rax,%r11), %rsi
        movq    %rsp, %rdx
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    kvcached_work
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        movq    %rdx, %r11
        restore %r9
        restore %r8
        restore %rcx
        restore %rdx
        restore %rsi
        restore %rdi
        testq   %r11, %r11
        jne     1f
        jmp     *%rax
1:      ret
        end     work_slowly

        /* void* dlsym(void* handle, const char* name). kvcached_dlsym answers the result (rdx not 0)
         * or libc's dlsym, which we jump to: it finds its caller by the return address, and needs
         * it for RTLD_NEXT and RTLD_DEFAULT. */
        .globl  dlsym
        begin   dlsym
        save    %rdi
        save    %rsi
        movq    16(%rsp), %rdx
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    kvcached_dlsym
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        restore %rsi
        restore %rdi
        testb   %dl, %dl
        jne     1f
        jmp     *%rax
1:      ret
        end     dlsym

#define HOOK(symbol, name, version, per_thread, meaning) hook symbol
#define NVML(symbol, meaning) hook symbol
#define EVIDENCE(symbol, name, version, per_thread, touches) evidence symbol
#define NODE(symbol, name, version, per_thread, touches) evidence symbol
#include "shim/entry/table.inc"

        .section .note.GNU-stack, "", @progbits
