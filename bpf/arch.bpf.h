/* SPDX-License-Identifier: GPL-2.0 */
#ifndef ICP_ARCH_BPF_H
#define ICP_ARCH_BPF_H

#ifdef __TARGET_ARCH_x86
#include "arch_x86.bpf.h"
#else
#error "no arch_*.bpf.h for this architecture"
#endif

#endif
