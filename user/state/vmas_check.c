// SPDX-License-Identifier: GPL-2.0
/* Mappings that a restart could not bring back, found before the job is touched. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "state/vmas.h"

bool vmas_has_flag(const char *flags, size_t len, const char *flag)
{
	for (size_t at = 0; at + 2 <= len; at += 3)
		if (flags[at] == flag[0] && flags[at + 1] == flag[1])
			return true;
	return false;
}

/* Flags of smaps that stand for something that can't be made again from outside. */
static const struct {
	char flag[3];
	const char *what;
} impossible[] = {
	{"ht", "huge pages (hugetlbfs)"},
	{"ss", "a shadow stack"},
	{"um", "handled by a userfaultfd"},
	{"ui", "handled by a userfaultfd"},
};

static const char *reason(const struct vma_flags *f)
{
	for (size_t i = 0; i < sizeof(impossible) / sizeof(*impossible); i++)
		if (vmas_has_flag(f->text, f->len, impossible[i].flag))
			return impossible[i].what;
	/* the kernel gives execute-only memory a key by itself */
	if (f->pkey > 0 && f->prot != PROT_EXEC)
		return "protected by a key (pkey_mprotect)";
	return NULL;
}

int vmas_check(const struct vma_flags *f)
{
	const char *why = reason(f);

	return why ? refuse(-EOPNOTSUPP,
			    "its mapping at %#lx is %s, which can't be restarted: "
			    "--no-restart saves the data only",
			    f->start, why)
		   : 0;
}
