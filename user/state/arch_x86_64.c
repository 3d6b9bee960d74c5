// SPDX-License-Identifier: GPL-2.0
#include <elf.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include "state/kinds.h"

/* XSTATE holds all of PRFPREG, which is for debuggers and for a machine without XSAVE. */
static const struct state_regset sets[] = {
	{sizeof(struct user_regs_struct), NT_PRSTATUS, false},
	{sizeof(struct user_fpregs_struct), NT_PRFPREG, false},
	{16384, NT_X86_XSTATE, true},
	{0},
};

static uint64_t stack(const void *prstatus, size_t len)
{
	struct user_regs_struct regs;

	if (len < sizeof(regs))
		return 0;
	memcpy(&regs, prstatus, sizeof(regs));
	return regs.rsp;
}

const struct state_arch state_arch = {
	.name = "x86_64",
	.red_zone = 128,
	.sets = sets,
	.stack = stack,
	.task_size = 0x7ffffffff000,
	.vdso_nr = SYS_arch_prctl,
	.vdso_op = 0x2003, /* ARCH_MAP_VDSO_64 */
};
