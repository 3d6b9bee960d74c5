// SPDX-License-Identifier: GPL-2.0
/* The kinds of open files, and what they share. */
#include "state/fdkind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct fd_kind *const kinds[FILE_KINDS] = {
	[FILE_REGULAR] = &fd_regular,
	[FILE_DIRECTORY] = &fd_directory,
	[FILE_PIPE] = &fd_pipe,
	[FILE_FIFO] = &fd_fifo,
	[FILE_MEMORY_DEVICE] = &fd_memory_device,
	[FILE_TERMINAL] = &fd_terminal,
	[FILE_MEMFD] = &fd_memfd,
	[FILE_PATH] = &fd_path,
	[FILE_EVENTFD] = &fd_eventfd,
	[FILE_SIGNALFD] = &fd_signalfd,
	[FILE_TIMERFD] = &fd_timerfd,
	[FILE_EPOLL] = &fd_epoll,
	[FILE_INOTIFY] = &fd_inotify,
	[FILE_PIDFD] = &fd_pidfd,
	[FILE_PROC] = &fd_proc,
	[FILE_NAMESPACE] = &fd_namespace,
	[FILE_TCP] = &fd_tcp,
	[FILE_UDP] = &fd_udp,
	[FILE_NETLINK] = &fd_netlink,
	[FILE_UNIX] = &fd_unix,
	[FILE_PTY_MASTER] = &fd_pty_master,
};

/* Those that a restart can't bring back. */
static const struct fd_kind others[FILE_KINDS] = {
	[FILE_OTHER_DEVICE] = {.text = "a device"},
	[FILE_SOCKET] = {.text = "a socket"},
	[FILE_FANOTIFY] = {.text = "a fanotify group"},
	[FILE_USERFAULTFD] = {.text = "a userfaultfd"},
	[FILE_IO_URING] = {.text = "an io_uring"},
	[FILE_PERF_EVENT] = {.text = "a perf event"},
	[FILE_BPF] = {.text = "a BPF object"},
	[FILE_OTHER] = {.text = "something unknown"},
	[FILE_TCP] = {.text = "a TCP socket"},
	[FILE_UDP] = {.text = "a UDP socket"},
	[FILE_NETLINK] = {.text = "a netlink socket"},
};

const struct fd_kind *fd_kind(uint32_t kind)
{
	if (kind < FILE_KINDS && kinds[kind])
		return kinds[kind];
	return &others[kind < FILE_KINDS && others[kind].text ? kind : FILE_OTHER];
}

int fd_borrow(const struct state_process *p, int fd)
{
	int copy = (int)syscall(SYS_pidfd_getfd, p->target->pidfd, fd, 0);

	return copy < 0 ? fail(-errno, "look into descriptor %d", fd) : copy;
}

int fd_pack_detail(Icp__OpenFile *out, const ProtobufCMessage *msg)
{
	size_t len = protobuf_c_message_get_packed_size(msg);

	out->detail.data = malloc(len + 1);
	if (!out->detail.data)
		return fail(-ENOMEM, "note an open file");
	out->detail.len = protobuf_c_message_pack(msg, out->detail.data);
	return 0;
}

int fd_unpack_detail(const Icp__OpenFile *f, const ProtobufCMessageDescriptor *type, void *out)
{
	ProtobufCMessage *msg =
		protobuf_c_message_unpack(type, NULL, f->detail.len, f->detail.data);

	if (!msg)
		return refuse(-EBADMSG, "what the image says of %s makes no sense",
			      fd_kind(f->kind)->text);
	*(ProtobufCMessage **)out = msg;
	return 0;
}

const char *fd_path_of(const Icp__OpenFile *f, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%.*s", (int)f->path.len, (const char *)f->path.data);
	return path;
}

int fd_reopen(int fd, uint32_t flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, (int)(flags & FD_KEPT_FLAGS) | O_CLOEXEC | O_NOCTTY);
}
