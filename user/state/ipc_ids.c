// SPDX-License-Identifier: GPL-2.0
/*
 * The id that a System V object had, and its creator. /proc/sys/kernel/shm_next_id (and sem, msg) is the id that the next
 * object of the namespace asks for: it gets it when its slot is free, else the next free slot with the same sequence
 * number (ipc/util.c: ipc_idr_alloc()). Whoever comes next gets it, so a request that was not used is used up.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "state/ipc.h"

const char *const sysv_names[] = {"shm", "sem", "msg"};
const char *const sysv_objects[] = {"segment", "semaphore set", "message queue"};

static bool want(const struct sysv_wanted *w)
{
	char path[64], text[16];
	_cleanup_fd_ int fd = -1;

	snprintf(path, sizeof(path), "/proc/sys/kernel/%s_next_id", sysv_names[w->kind]);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	snprintf(text, sizeof(text), "%u", w->id);
	return fd >= 0 && !io_write_full(fd, text, strlen(text));
}

static void use_up(enum sysv_kind kind)
{
	int id = -1;

	switch (kind) {
	case SYSV_SHM:
		id = shmget(IPC_PRIVATE, 1, 0600);
		if (id >= 0)
			shmctl(id, IPC_RMID, NULL);
		break;
	case SYSV_SEM:
		id = semget(IPC_PRIVATE, 1, 0600);
		if (id >= 0)
			semctl(id, 0, IPC_RMID);
		break;
	case SYSV_MSG:
		id = msgget(IPC_PRIVATE, 0600);
		if (id >= 0)
			msgctl(id, IPC_RMID, NULL);
		break;
	}
}

/* This thread only: the C library would change all of them. */
static void become(uint32_t euid, uint32_t egid, bool back)
{
	long err = 0;

	if (back)
		err |= syscall(SYS_setresuid, -1, euid, -1);
	err |= syscall(SYS_setresgid, -1, egid, -1);
	if (!back)
		err |= syscall(SYS_setresuid, -1, euid, -1);
	if (err)
		debug("can't be uid %u, gid %u", euid, egid);
}

int sysv_make(const struct sysv_wanted *w, int (*get)(void *arg), void *arg)
{
	uid_t euid = geteuid();
	gid_t egid = getegid();
	bool wanted = want(w), other = !euid && (w->cuid != euid || w->cgid != egid);
	int id, err;

	if (other)
		become(w->cuid, w->cgid, false);
	id = get(arg);
	err = errno;
	if (other)
		become(euid, egid, true);
	if (id < 0 && wanted)
		use_up(w->kind);
	return id < 0 ? -err : id;
}

void sysv_other_id(const struct sysv_wanted *w, int id, const char *who)
{
	note("note: the %s that had the id %u (key %#x) has the id %d now: the old one is "
	     "taken, or may not be asked for%s%s",
	     sysv_objects[w->kind], w->id, w->key, id,
	     who && *who ? "; who may have kept the old one: " : "", who ? who : "");
}
