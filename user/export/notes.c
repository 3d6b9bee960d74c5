// SPDX-License-Identifier: GPL-2.0
/* The notes: elf(5), fs/binfmt_elf.c. Sizes are those of every 64-bit Linux. */
#include "export/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "state/ids.pb-c.h"
#include "state/signals.pb-c.h"

#define CORE_SIGINFO_SIZE 128

/* struct elf_prstatus without the registers, which differ */
struct prstatus_head {
	int32_t si_signo, si_code, si_errno;
	int16_t cursig, pad;
	uint64_t sigpend, sighold;
	int32_t pid, ppid, pgrp, sid;
	uint64_t times[8];
};
_Static_assert(sizeof(struct prstatus_head) == 112, "prstatus_head");

struct prpsinfo {
	char state, sname, zombie, nice;
	uint32_t pad;
	uint64_t flags;
	uint32_t uid, gid;
	int32_t pid, ppid, pgrp, sid;
	char fname[16], args[80];
};
_Static_assert(sizeof(struct prpsinfo) == 136, "prpsinfo");

static const struct {
	const char *name;
	uint16_t machine;
	size_t regs; /* bytes of NT_PRSTATUS as ptrace gives it */
} arches[] = {
	{"x86_64", EM_X86_64, 27 * 8},
	{"aarch64", EM_AARCH64, 34 * 8},
};

static int arch_of(const struct core *c)
{
	for (size_t i = 0; i < sizeof(arches) / sizeof(*arches); i++)
		if (!strcmp(arches[i].name, c->manifest->arch))
			return (int)i;
	return refuse(-EOPNOTSUPP, "cores of the architecture '%s' are not supported",
		      c->manifest->arch);
}

int core_machine(const struct core *c, uint16_t *machine)
{
	int arch = arch_of(c);

	if (arch >= 0)
		*machine = arches[arch].machine;
	return arch < 0 ? arch : 0;
}

static int append(struct core *c, const void *data, size_t len)
{
	if (vec_reserve(&c->notes, c->notes.n + len + 3))
		return fail(-ENOMEM, "write notes");
	if (len)
		memcpy(c->notes.data + c->notes.n, data, len);
	c->notes.n += len;
	while (c->notes.n % 4)
		c->notes.data[c->notes.n++] = 0;
	return 0;
}

static int add_note(struct core *c, const char *name, uint32_t type, const void *data,
		    size_t len)
{
	Elf64_Nhdr head = {.n_namesz = (uint32_t)strlen(name) + 1,
			   .n_descsz = (uint32_t)len,
			   .n_type = type};
	int err = append(c, &head, sizeof(head));

	if (!err)
		err = append(c, name, head.n_namesz);
	return err ? err : append(c, data, len);
}

static const Icp__RegSet *find_set(const Icp__Thread *t, uint32_t type)
{
	for (size_t i = 0; i < t->n_regs; i++)
		if (t->regs[i]->type == type)
			return t->regs[i];
	return NULL;
}

static const Icp__StateBlob *find_blob(Icp__StateBlob *const *blobs, size_t n, const char *kind)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(blobs[i]->kind, kind))
			return blobs[i];
	return NULL;
}

static uint64_t blocked_signals(const Icp__Thread *t)
{
	const Icp__StateBlob *blob = find_blob(t->blobs, t->n_blobs, "signals");
	Icp__ThreadSignals *signals =
		blob ? icp__thread_signals__unpack(NULL, blob->data.len, blob->data.data)
		     : NULL;
	uint64_t blocked = signals ? signals->blocked : 0;

	if (signals)
		icp__thread_signals__free_unpacked(signals, NULL);
	return blocked;
}

static int add_prstatus(struct core *c, const Icp__Thread *t)
{
	uint8_t note[sizeof(struct prstatus_head) + 512] = {0};
	const Icp__RegSet *set = find_set(t, NT_PRSTATUS);
	const Icp__Process *p = c->process;
	struct prstatus_head head = {
		.pid = (int32_t)t->tid, /* the thread: bfd and gdb go by it */
		.ppid = (int32_t)p->ppid,
		.pgrp = (int32_t)p->pgid,
		.sid = (int32_t)p->sid,
		.sighold = blocked_signals(t)};
	int arch = arch_of(c), fpvalid = find_set(t, NT_PRFPREG) != NULL;
	size_t regs;

	if (arch < 0)
		return arch;
	regs = arches[arch].regs;
	if (!set || set->data.len != regs)
		return refuse(-EBADMSG, "thread %u has no registers of %s in the image", t->tid,
			      arches[arch].name);
	memcpy(note, &head, sizeof(head));
	memcpy(note + sizeof(head), set->data.data, regs);
	memcpy(note + sizeof(head) + regs, &fpvalid, sizeof(fpvalid));
	return add_note(c, "CORE", NT_PRSTATUS, note, sizeof(head) + regs + 8);
}

static int add_prpsinfo(struct core *c)
{
	const Icp__Process *p = c->process;
	struct prpsinfo info = {.sname = p->n_threads && p->threads[0]->stopped ? 'T' : 'S',
				.uid = p->n_uids ? p->uids[0] : 0,
				.gid = p->n_gids ? p->gids[0] : 0,
				.pid = (int32_t)p->pid,
				.ppid = (int32_t)p->ppid,
				.pgrp = (int32_t)p->pgid,
				.sid = (int32_t)p->sid};
	size_t len =
		p->cmdline.len < sizeof(info.args) - 1 ? p->cmdline.len : sizeof(info.args) - 1;

	info.state = info.sname == 'T' ? 3 : 1;
	strncpy(info.fname, p->comm, sizeof(info.fname) - 1);
	for (size_t i = 0; i < len; i++)
		info.args[i] = p->cmdline.data[i] ? (char)p->cmdline.data[i] : ' ';
	while (len && info.args[len - 1] == ' ')
		info.args[--len] = 0;
	return add_note(c, "CORE", NT_PRPSINFO, &info, sizeof(info));
}

static int add_auxv(struct core *c)
{
	const Icp__StateBlob *blob = find_blob(c->process->blobs, c->process->n_blobs, "ids");
	Icp__ProcessState *state =
		blob ? icp__process_state__unpack(NULL, blob->data.len, blob->data.data) : NULL;
	int err = 0;

	if (blob && !state)
		return refuse(-EBADMSG, "its state 'ids' does not parse");
	if (state && state->mm && state->mm->auxv.len)
		err = add_note(c, "CORE", NT_AUXV, state->mm->auxv.data, state->mm->auxv.len);
	else
		c->result->no_auxv = true;
	if (state)
		icp__process_state__free_unpacked(state, NULL);
	return err;
}

/* Mappings whose content gdb may look for in a file. The others are whole in the core. */
static bool in_file(const struct core *c, size_t i)
{
	const Icp__Vma *v = c->process->vmas[i];

	return v->path[0] && core_background(c, v, false) == BACK_FILE;
}

/* count, page size, then start, end, offset in pages of each, then the names. */
static int add_files(struct core *c)
{
	VEC(uint64_t) head = {0};
	VEC(char) names = {0};
	VEC(uint8_t) all = {0};
	size_t n = 0;
	int err = vec_reserve(&head, 2 + 3 * c->process->n_vmas);

	for (size_t i = 0; !err && i < c->process->n_vmas; i++) {
		const Icp__Vma *v = c->process->vmas[i];
		/* a name that gdb can't open, lest it shows the bytes of another file */
		const char *tail = v->deleted	     ? " (deleted)"
				   : c->file_same[i] ? ""
						     : " (changed)";

		if (!in_file(c, i))
			continue;
		err = vec_reserve(&names, names.n + strlen(v->path) + 16);
		if (err)
			break;
		names.n += (size_t)sprintf(names.data + names.n, "%s%s", v->path, tail) + 1;
		head.data[2 + 3 * n] = v->start;
		head.data[3 + 3 * n] = v->end;
		head.data[4 + 3 * n] = v->offset / c->manifest->page_size;
		n++;
	}
	if (!err) {
		head.data[0] = n;
		head.data[1] = c->manifest->page_size;
		head.n = 2 + 3 * n;
		err = vec_reserve(&all, head.n * 8 + names.n + 1);
	}
	if (!err) {
		memcpy(all.data, head.data, head.n * 8);
		if (names.n)
			memcpy(all.data + head.n * 8, names.data, names.n);
		err = add_note(c, "CORE", NT_FILE, all.data, head.n * 8 + names.n);
	} else {
		err = fail(-ENOMEM, "write notes");
	}
	vec_free(&head);
	vec_free(&names);
	vec_free(&all);
	return err;
}

static int add_set(struct core *c, const Icp__RegSet *set)
{
	const char *name = set->type == NT_PRFPREG ? "CORE" : "LINUX";
	uint8_t other[XSTATE_X86_64_MAX];
	size_t len = set->type == NT_X86_XSTATE
			     ? xstate_x86_64(set->data.data, set->data.len, other)
			     : 0;

	if (len)
		return add_note(c, name, set->type, other, len);
	return add_note(c, name, set->type, set->data.data, set->data.len);
}

/* The order of the kernel: readers give what follows a NT_PRSTATUS to that thread. */
static int add_thread(struct core *c, size_t i)
{
	static const uint8_t siginfo[CORE_SIGINFO_SIZE]; /* no signal stopped it: we did */
	const Icp__Thread *t = c->process->threads[i];
	int err = add_prstatus(c, t);

	if (!err && !i)
		err = add_prpsinfo(c);
	if (!err)
		err = add_note(c, "CORE", NT_SIGINFO, siginfo, sizeof(siginfo));
	if (!err && !i)
		err = add_auxv(c);
	if (!err && !i)
		err = add_files(c);
	for (size_t k = 0; !err && k < t->n_regs; k++)
		if (t->regs[k]->type != NT_PRSTATUS)
			err = add_set(c, t->regs[k]);
	return err;
}

int core_notes(struct core *c)
{
	int err = 0;

	if (!c->process->n_threads)
		return refuse(-EBADMSG, "it has no threads in the image");
	for (size_t i = 0; !err && i < c->process->n_threads; i++)
		err = add_thread(c, i);
	c->result->threads = c->process->n_threads;
	return err;
}
