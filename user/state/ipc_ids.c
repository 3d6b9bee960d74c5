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

int sysv_find(enum sysv_kind kind, uint32_t key)
{
	switch (kind) {
	case SYSV_SHM:
		return shmget((key_t)key, 0, 0);
	case SYSV_SEM:
		return semget((key_t)key, 0, 0);
	default:
		return msgget((key_t)key, 0);
	}
}

static uint64_t waiting(int id, uint64_t semaphores)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < semaphores; i++) {
		int up = semctl(id, (int)i, GETNCNT), zero = semctl(id, (int)i, GETZCNT);

		n += (up > 0 ? (uint64_t)up : 0) + (zero > 0 ? (uint64_t)zero : 0);
	}
	return n;
}

static void take_perm(const struct ipc_perm *p, struct sysv_stat *out)
{
	out->key = (uint32_t)p->__key;
	out->mode = p->mode & 0777;
	out->uid = p->uid;
	out->gid = p->gid;
}

int sysv_stat(enum sysv_kind kind, int id, struct sysv_stat *out)
{
	struct shmid_ds shm = {0};
	struct semid_ds sem = {0};
	struct msqid_ds msg = {0};

	*out = (struct sysv_stat){0};
	switch (kind) {
	case SYSV_SHM:
		if (shmctl(id, IPC_STAT, &shm))
			return -errno;
		take_perm(&shm.shm_perm, out);
		out->size = shm.shm_segsz;
		out->users = shm.shm_nattch;
		out->cpid = shm.shm_cpid;
		return 0;
	case SYSV_SEM:
		if (semctl(id, 0, IPC_STAT, (union semun){.buf = &sem}))
			return -errno;
		take_perm(&sem.sem_perm, out);
		out->size = sem.sem_nsems;
		out->users = waiting(id, sem.sem_nsems);
		return 0;
	default:
		if (msgctl(id, IPC_STAT, &msg))
			return -errno;
		take_perm(&msg.msg_perm, out);
		return 0;
	}
}

int sysv_remove(enum sysv_kind kind, int id)
{
	int ret = kind == SYSV_SHM   ? shmctl(id, IPC_RMID, NULL)
		  : kind == SYSV_SEM ? semctl(id, 0, IPC_RMID)
				     : msgctl(id, IPC_RMID, NULL);

	return ret ? -errno : 0;
}

int sysv_set_owner(enum sysv_kind kind, int id, uint32_t uid, uint32_t gid, uint32_t mode)
{
	struct shmid_ds shm;
	struct semid_ds sem;
	struct msqid_ds msg;
	struct ipc_perm *perm = kind == SYSV_SHM   ? &shm.shm_perm
				: kind == SYSV_SEM ? &sem.sem_perm
						   : &msg.msg_perm;
	int ret = kind == SYSV_SHM   ? shmctl(id, IPC_STAT, &shm)
		  : kind == SYSV_SEM ? semctl(id, 0, IPC_STAT, (union semun){.buf = &sem})
				     : msgctl(id, IPC_STAT, &msg);

	if (ret)
		return -errno;
	perm->uid = uid;
	perm->gid = gid;
	perm->mode = (unsigned short)(mode & 0777);
	ret = kind == SYSV_SHM	 ? shmctl(id, IPC_SET, &shm)
	      : kind == SYSV_SEM ? semctl(id, 0, IPC_SET, (union semun){.buf = &sem})
				 : msgctl(id, IPC_SET, &msg);
	return ret ? -errno : 0;
}

static void use_up(enum sysv_kind kind)
{
	int id = kind == SYSV_SHM   ? shmget(IPC_PRIVATE, 1, 0600)
		 : kind == SYSV_SEM ? semget(IPC_PRIVATE, 1, 0600)
				    : msgget(IPC_PRIVATE, 0600);

	if (id >= 0)
		ignore_failure(sysv_remove(kind, id));
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
