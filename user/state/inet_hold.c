// SPDX-License-Identifier: GPL-2.0
/*
 * Packets of connections that are being moved are dropped, in both directions, by a table of
 * nftables: from before they are read until the restart has them back. Nothing that arrives in
 * between is acknowledged, and nobody says that there is no such connection. To the peer the
 * network is down for a while.
 *
 * We keep the connections open until the job is dead, and end them ourselves then.
 *
 * The table is removed by whoever is left: by icp-bpf when the job runs on, by the warden when
 * icp-bpf dies before the job was killed, by the restart.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "state/inet.h"

extern char **environ;

struct held {
	struct warden *warden;
	char table[32];
	VEC(pid_t) processes;
	VEC(int) connections; /* ours: they outlive the job */
	bool stays;
};

static int run_nft(char *const *argv, int in, int out)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	int err, status = 0;
	sigset_t none;
	pid_t pid;

	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, in, 0);
	posix_spawn_file_actions_adddup2(&files, out, 1);
	posix_spawn_file_actions_adddup2(&files, out, 2);
	err = posix_spawnp(&pid, "nft", &files, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	if (err)
		return fail(-err, "run nft (package nftables)");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status ? -EIO : 0;
}

/* What @script says, all of it or nothing. */
static int nft(const char *script)
{
	char *const argv[] = {"nft", "-f", "-", NULL};
	_cleanup_fd_ int in = memfd_create("nft", MFD_CLOEXEC);
	_cleanup_fd_ int out = memfd_create("nft", MFD_CLOEXEC);
	char said[200] = "";
	int err;

	if (in < 0 || out < 0 || io_write_full(in, script, strlen(script)) ||
	    lseek(in, 0, SEEK_SET))
		return fail(-EIO, "write a script for nft");
	err = run_nft(argv, in, out);
	if (err != -EIO)
		return err;
	if (pread(out, said, sizeof(said) - 1, 0) < 0)
		said[0] = 0;
	said[strcspn(said, "\n")] = 0;
	return refuse(-EIO, "nft can't hold packets back: %s", said);
}

/* "A . port . B . port" of a connection into the list of its family; false: not connected. */
static bool print_connection(int fd, FILE *v4, FILE *v6)
{
	char ours[INET6_ADDRSTRLEN], theirs[INET6_ADDRSTRLEN];
	union address a = {0}, b = {0};
	socklen_t a_len = sizeof(a), b_len = sizeof(b);
	bool mapped;

	if (getsockname(fd, &a.any, &a_len) || getpeername(fd, &b.any, &b_len))
		return false;
	mapped = a.any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&b.v6.sin6_addr);
	if (a.any.sa_family == AF_INET || mapped) {
		inet_ntop(AF_INET,
			  mapped ? (void *)&a.v6.sin6_addr.s6_addr[12] : (void *)&a.v4.sin_addr,
			  ours, sizeof(ours));
		inet_ntop(AF_INET,
			  mapped ? (void *)&b.v6.sin6_addr.s6_addr[12] : (void *)&b.v4.sin_addr,
			  theirs, sizeof(theirs));
	} else {
		inet_ntop(AF_INET6, &a.v6.sin6_addr, ours, sizeof(ours));
		inet_ntop(AF_INET6, &b.v6.sin6_addr, theirs, sizeof(theirs));
	}
	fprintf(a.any.sa_family == AF_INET || mapped ? v4 : v6, "%s . %u . %s . %u, ", ours,
		ntohs(a.v4.sin_port), theirs, ntohs(b.v4.sin_port));
	return true;
}

static int print_connections(struct state_process *p, FILE *v4, FILE *v6)
{
	_cleanup_fd_list_ struct fd_list fds = {0};
	int err = fd_list_read(p->target, &fds);

	vec_each (f, &fds) {
		_cleanup_fd_ int fd = -1;

		if (err || f->kind != FILE_TCP)
			continue;
		fd = fd_borrow(p, f->fd);
		err = fd < 0 ? fd : 0;
		if (!err)
			print_connection(fd, v4, v6);
	}
	return err;
}

/* Delete first: one may be left from long ago. */
static void print_table(const char *table, FILE *script)
{
	static const char body[] =
		" set v4 { type ipv4_addr . inet_service . ipv4_addr . inet_service; }\n"
		" set v6 { type ipv6_addr . inet_service . ipv6_addr . inet_service; }\n"
		" chain in { type filter hook prerouting priority -400;\n"
		"  ip daddr . tcp dport . ip saddr . tcp sport @v4 drop\n"
		"  ip6 daddr . tcp dport . ip6 saddr . tcp sport @v6 drop\n"
		" }\n"
		" chain out { type filter hook output priority -400;\n"
		"  ip saddr . tcp sport . ip daddr . tcp dport @v4 drop\n"
		"  ip6 saddr . tcp sport . ip6 daddr . tcp dport @v6 drop\n"
		" }\n";

	fprintf(script, "add table inet %s\ndelete table inet %s\ntable inet %s {\n%s}\n",
		table, table, table, body);
}

static int hold_process(struct state_process *p, struct held *h, bool first)
{
	_cleanup_free_ char *text4 = NULL, *text6 = NULL, *text = NULL;
	size_t len;
	FILE *v4 = open_memstream(&text4, &len), *v6 = open_memstream(&text6, &len),
	     *script = open_memstream(&text, &len);
	int err = v4 && v6 && script ? print_connections(p, v4, v6)
				     : fail(-ENOMEM, "hold packets back");

	if (v4)
		fclose(v4);
	if (v6)
		fclose(v6);
	if (script) {
		if (first)
			print_table(h->table, script);
		if (text4 && *text4)
			fprintf(script, "add element inet %s v4 { %s }\n", h->table, text4);
		if (text6 && *text6)
			fprintf(script, "add element inet %s v6 { %s }\n", h->table, text6);
		fclose(script);
	}
	return err ? err : nft(text);
}

static struct held *held_of(struct state_process *p)
{
	struct held *h = p->job->held;

	if (!h) {
		h = p->job->held = calloc(1, sizeof(*h));
		if (!h)
			return NULL;
		h->warden = p->warden;
		snprintf(h->table, sizeof(h->table), "icp_bpf_%d", p->target->pid);
	}
	return h;
}

const char *inet_hold(struct state_process *p, int *err)
{
	struct held *h = held_of(p);
	pid_t *slot;

	*err = h ? 0 : fail(-ENOMEM, "hold packets back");
	if (*err)
		return NULL;
	vec_each (pid, &h->processes)
		if (*pid == p->target->pid)
			return h->table;
	if (!h->processes.n)
		*err = warden_hold(h->warden, h->table);
	slot = *err ? NULL : vec_push(&h->processes);
	if (!*err && !slot)
		*err = fail(-ENOMEM, "hold packets back");
	if (!*err) {
		*slot = p->target->pid;
		*err = hold_process(p, h, h->processes.n == 1);
	}
	return *err ? NULL : h->table;
}

int inet_hold_keep(struct state_process *p, int fd)
{
	int *slot = vec_push(&p->job->held->connections);

	if (!slot)
		return fail(-ENOMEM, "hold packets back");
	*slot = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return *slot < 0 ? fail(-errno, "keep a connection") : 0;
}

/* In repair mode a connection ends without a word, and nothing of it stays behind to stand in
 * the way of its return. */
static void forget_connections(struct held *h)
{
	int on = 1;

	vec_each (fd, &h->connections) {
		if (h->stays)
			setsockopt(*fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on));
		cleanup_fd(fd);
	}
	vec_free(&h->connections);
}

void inet_hold_stays(struct state_job *job)
{
	if (!job->held)
		return;
	job->held->stays = true;
	forget_connections(job->held);
	if (warden_hold(job->held->warden, NULL))
		err_clear();
}

static int remove_table(const char *table)
{
	char script[100];

	snprintf(script, sizeof(script), "delete table inet %s\n", table);
	return nft(script);
}

void inet_hold_end(struct state_job *job)
{
	struct held *h = job->held;

	if (!h)
		return;
	if (h->processes.n && !h->stays) {
		if (remove_table(h->table) || warden_hold(h->warden, NULL))
			err_clear();
	}
	forget_connections(h);
	vec_free(&h->processes);
	free(h);
	job->held = NULL;
}

const char *inet_held(const struct state_job *job)
{
	return job->held && job->held->processes.n ? job->held->table : NULL;
}

bool inet_can_hold(void)
{
	char *const argv[] = {"nft", "--version", NULL};
	_cleanup_fd_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	bool can = !run_nft(argv, null, null);

	err_clear();
	return can;
}

int inet_let_go(const Icp__Manifest *m)
{
	_cleanup_free_ char *text = NULL;
	size_t len;
	FILE *script = open_memstream(&text, &len);

	if (!script)
		return fail(-ENOMEM, "let packets through again");
	for (size_t i = 0; i < m->n_processes; i++)
		fprintf(script, "add table inet icp_bpf_%u\ndelete table inet icp_bpf_%u\n",
			m->processes[i]->pid, m->processes[i]->pid);
	fclose(script);
	return nft(text);
}
