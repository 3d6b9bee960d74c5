// SPDX-License-Identifier: GPL-2.0
/* What is left of a process that nobody has waited for yet: who it was, and how it ended. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "state/creds.h"
#include "state/restore.h"

#define CORE_FLAG 0x80

/* ---- dump ---- */

static int fill_ids(const char *status, Icp__Process *image)
{
	uint32_t pids[32];
	size_t n = procfs_numbers(status, "NSpid", pids, 32);

	n = n > 32 ? 32 : n;
	image->nspids = calloc(n + 1, sizeof(uint32_t));
	image->uids = calloc(4, sizeof(uint32_t));
	image->gids = calloc(4, sizeof(uint32_t));
	if (!image->nspids || !image->uids || !image->gids)
		return fail(-ENOMEM, "note a zombie");
	memcpy(image->nspids, pids, n * sizeof(uint32_t));
	image->n_nspids = n;
	image->n_uids = procfs_numbers(status, "Uid", image->uids, 4);
	image->n_gids = procfs_numbers(status, "Gid", image->gids, 4);
	return image->n_uids == 4 && image->n_gids == 4
		       ? 0
		       : refuse(-EPROTO, "the ids of zombie %u make no sense", image->pid);
}

static int fill_stat(const char *text, Icp__Process *image)
{
	Icp__ProcessState msg = ICP__PROCESS_STATE__INIT;
	const char *open = strchr(text, '('), *close = strrchr(text, ')');
	_cleanup_free_ char *comm = NULL;
	int64_t stat[52 - 4 + 1];
	int err = procfs_stat(text, 4, 52, stat);

	if (err)
		return err;
	comm = open && close > open ? strndup(open + 1, (size_t)(close - open - 1)) : NULL;
	image->comm = comm ? procfs_utf8(comm) : NULL;
	if (!image->comm)
		return fail(-ENOMEM, "note a zombie");
	image->ppid = (uint32_t)stat[0];
	image->pgid = (uint32_t)stat[1];
	image->sid = (uint32_t)stat[2];
	image->start_time = (uint64_t)stat[22 - 4];
	image->no_memory = true;
	msg.comm = (ProtobufCBinaryData){strlen(comm), (uint8_t *)comm};
	msg.zombie = true;
	msg.exit_signal = (uint32_t)stat[38 - 4];
	msg.exit_code = (uint32_t)stat[52 - 4];
	return state_pack_blob(&image->blobs, &image->n_blobs, "ids", IDS_VERSION, &msg.base);
}

int state_zombie(pid_t pid, Icp__Process *image)
{
	_cleanup_free_ char *stat = NULL, *status = NULL;
	char path[32];
	int err;

	image->pid = (uint32_t)pid;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	err = io_read_file(AT_FDCWD, path, &stat, NULL);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (!err)
		err = io_read_file(AT_FDCWD, path, &status, NULL);
	if (err)
		return fail(err, "read the state of zombie %d", pid);
	err = fill_stat(stat, image);
	return err ? err : fill_ids(status, image);
}

/* ---- restore ---- */

static int unpack(const Icp__Process *image, Icp__ProcessState **out)
{
	return restore_unpack(image->blobs, image->n_blobs, "ids", IDS_VERSION,
			      &icp__process_state__descriptor, out);
}

/* Signals whose default is something else than the end. */
static bool ends(int sig)
{
	return sig > 0 && sig < NSIG && sig != SIGCHLD && sig != SIGCONT && sig != SIGURG &&
	       sig != SIGWINCH && sig != SIGSTOP && sig != SIGTSTP && sig != SIGTTIN &&
	       sig != SIGTTOU;
}

int zombie_check(const Icp__Process *image)
{
	Icp__ProcessState *msg;
	int err = unpack(image, &msg), code;

	if (err)
		return err;
	code = (int)msg->exit_code;
	if (!msg->zombie || image->n_threads || image->n_vmas || image->n_uids != 4 ||
	    image->n_gids != 4 || (unsigned)code > 0xffff ||
	    (WTERMSIG(code) ? code >> 8 || !ends(WTERMSIG(code)) : code & CORE_FLAG))
		err = refuse(-EBADMSG, "a zombie that makes no sense");
	else if (msg->exit_signal != SIGCHLD)
		err = refuse(-EOPNOTSUPP,
			     "it has ended, and tells its parent by signal %u: "
			     "that can't be restarted",
			     msg->exit_signal);
	else if (code & CORE_FLAG)
		note("process %u (%s) dumped core; its parent will hear only of the signal",
		     image->pid, image->comm);
	icp__process_state__free_unpacked(msg, NULL);
	return err;
}

void zombie_become(const Icp__Process *image)
{
	Icp__ProcessState *msg;
	char comm[16] = "";
	sigset_t one;
	int sig;

	if (unpack(image, &msg))
		_exit(1);
	sig = WTERMSIG((int)msg->exit_code);
	memcpy(comm, msg->comm.data, msg->comm.len < 15 ? msg->comm.len : 15);
	prctl(PR_SET_NAME, comm);
	/* for waitid(); ours is not to be seen in a core */
	prctl(PR_SET_DUMPABLE, 0);
	syscall(SYS_setresgid, image->gids[0], image->gids[1], image->gids[2]);
	syscall(SYS_setresuid, image->uids[0], image->uids[1], image->uids[2]);
	if (!sig)
		_exit(WEXITSTATUS((int)msg->exit_code));
	signal(sig, SIG_DFL);
	sigemptyset(&one);
	sigaddset(&one, sig);
	syscall(SYS_kill, getpid(), sig);
	sigprocmask(SIG_UNBLOCK, &one, NULL);
	_exit(1);
}
