/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel types that bpf/ uses on x86-64, and of those only the fields that it reads: see ../README.md.
 * Offsets here mean nothing: libbpf takes the running kernel's from its BTF at load (CO-RE), by name.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#include "../common.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* A system call's number is in orig_ax; its arguments are di, si, dx, r10, r8, r9. */
struct pt_regs {
	unsigned long r9;
	unsigned long r8;
	unsigned long r10;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
	unsigned long ip;
};

#pragma clang attribute pop

#endif
