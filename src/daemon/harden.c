/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system call filter of the agent (harden.h): a list of what it never needs, refused with
 * EPERM. A list of what it may do would be tighter, but would break with every release of libc,
 * libcurl and OpenSSL; the container's own profile (RuntimeDefault) is the outer wall.
 */
#include "harden.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

/* LeakSanitizer traces its own process at the end. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#if defined(OUR_ARCH) && !defined(SANITIZED)

/* x86-64's second table of numbers (x32) would go around the list. */
#define X32_FIRST 0x40000000U

static const uint32_t refused[] = {
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_bpf,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_setns,
    SYS_unshare,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_add_key,
    SYS_keyctl,
    SYS_request_key,
};
#define REFUSED_COUNT (sizeof refused / sizeof refused[0])
/* Architecture, number, x32, one comparison each, allow, refuse. */
#define PROGRAM_MAX (REFUSED_COUNT + 8)

static bool filter_install(void)
{
    struct sock_filter program[PROGRAM_MAX];
    uint16_t used = 0;
    const uint32_t eperm = SECCOMP_RET_ERRNO | (EPERM & SECCOMP_RET_DATA);
    program[used++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    program[used++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0);
    program[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, eperm);
    program[used++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    program[used++] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_FIRST, REFUSED_COUNT + 1, 0);
    for (uint32_t i = 0; i < REFUSED_COUNT; i++)
        program[used++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i],
                                                       (uint8_t)(REFUSED_COUNT - i), 0);
    program[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, eperm);
    const struct sock_fprog whole = {.len = used, .filter = program};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &whole) == 0;
}

#else

static bool filter_install(void)
{
    return false;
}

#endif

bool harden_process(void)
{
    (void)prctl(PR_SET_DUMPABLE, 0);
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && filter_install();
}
