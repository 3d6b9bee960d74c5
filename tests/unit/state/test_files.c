// SPDX-License-Identifier: GPL-2.0
/* Open files, pipes with something in them, and what is refused. */
#include "unit/state/dumping.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "state/files.h"
#include "state/files.pb-c.h"
#include "lib/scratch.h"

enum {
	FD_FILE = 40,
	FD_DUP,
	FD_OTHER,
	FD_APPEND,
	FD_GONE,
	FD_DIR,
	FD_NULL,
	FD_MEMFD,
	FD_IN,
	FD_OUT,
	FD_PACKET_IN,
	FD_PACKET_OUT,
	FD_LAST
};

/* As descriptor @to, whatever it was. */
static void place(int fd, int to, bool cloexec)
{
	if (fd < 0 || dup3(fd, to, cloexec ? O_CLOEXEC : 0) != to)
		_exit(80);
	close(fd);
}

static void set_up_files(struct board *b)
{
	char name[SCRATCH_MAX], gone[SCRATCH_MAX];
	int file = mkstemp(scratch(name, "state")), deleted = mkstemp(scratch(gone, "state")),
	    ends[2];

	snprintf(b->text, sizeof(b->text), "%s", name);
	if (write(file, "0123456789", 10) != 10)
		_exit(81);
	lseek(file, 4, SEEK_SET);
	place(file, FD_FILE, false);
	if (dup3(FD_FILE, FD_DUP, O_CLOEXEC) != FD_DUP)
		_exit(82);
	place(open(name, O_RDWR), FD_OTHER, false);
	lseek(FD_OTHER, 4, SEEK_SET);
	place(open(name, O_WRONLY | O_APPEND), FD_APPEND, true);
	unlink(gone);
	place(deleted, FD_GONE, false);
	place(open("/usr", O_RDONLY | O_DIRECTORY), FD_DIR, false);
	place(open("/dev/null", O_RDWR), FD_NULL, false);
	place((int)syscall(SYS_memfd_create, "state", 2u /* MFD_ALLOW_SEALING */), FD_MEMFD,
	      false);
	fcntl(FD_MEMFD, F_ADD_SEALS, F_SEAL_GROW);
	if (pipe(ends) || write(ends[1], "bytes in a pipe", 15) != 15)
		_exit(83);
	place(ends[0], FD_IN, false);
	place(ends[1], FD_OUT, false);
	if (pipe2(ends, O_DIRECT) || write(ends[1], "one", 3) != 3 ||
	    write(ends[1], "packet", 6) != 6)
		_exit(84);
	place(ends[0], FD_PACKET_IN, false);
	place(ends[1], FD_PACKET_OUT, false);
}

static bool files_unchanged(struct board *b)
{
	char got[64];

	for (int fd = FD_FILE; fd < FD_LAST; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			return false;
	if (fcntl(FD_LAST, F_GETFD) >= 0 || lseek(FD_FILE, 0, SEEK_CUR) != 4)
		return false;
	fcntl(FD_IN, F_SETFL, O_NONBLOCK);
	return read(FD_IN, got, sizeof(got)) == 15 && !memcmp(got, "bytes in a pipe", 15) &&
	       read(FD_IN, got, sizeof(got)) < 0 && read(FD_PACKET_IN, got, sizeof(got)) == 3 &&
	       read(FD_PACKET_IN, got, sizeof(got)) == 6;
}

static const Icp__Descriptor *descriptor(const Icp__FileTable *t, uint32_t fd)
{
	for (size_t i = 0; i < t->n_descriptors; i++)
		if (t->descriptors[i]->fd == fd)
			return t->descriptors[i];
	fail_msg("no descriptor %u", fd);
	return NULL;
}

static const Icp__OpenFile *file_of(const Icp__OpenFiles *all, const Icp__FileTable *t,
				    uint32_t fd)
{
	return all->files[descriptor(t, fd)->file - 1];
}

static const Icp__PipeContent *content_of(const Icp__OpenFiles *all, uint64_t inode)
{
	for (size_t i = 0; i < all->n_pipes; i++)
		if (all->pipes[i]->inode == inode)
			return all->pipes[i];
	fail_msg("no pipe %lu", inode);
	return NULL;
}

static void check_kinds(const Icp__OpenFiles *all, const Icp__FileTable *t, const char *name)
{
	const Icp__OpenFile *f = file_of(all, t, FD_FILE);

	assert_int_equal(f->kind, FILE_REGULAR);
	assert_int_equal(f->path.len, strlen(name));
	assert_memory_equal(f->path.data, name, f->path.len);
	assert_int_equal(f->offset, 4);
	assert_int_equal(f->size, 10);
	assert_int_equal(f->flags & O_ACCMODE, O_RDWR);
	assert_true(f->inode && f->mtime_ns && f->mnt_id && !f->deleted);
	assert_int_equal(descriptor(t, FD_DUP)->file, f->id);
	assert_true(descriptor(t, FD_DUP)->close_on_exec);
	assert_false(descriptor(t, FD_FILE)->close_on_exec);
	assert_int_not_equal(descriptor(t, FD_OTHER)->file, f->id);
	assert_int_equal(file_of(all, t, FD_OTHER)->inode, f->inode);
	f = file_of(all, t, FD_APPEND);
	assert_int_equal(f->flags & (O_ACCMODE | O_APPEND | O_CLOEXEC), O_WRONLY | O_APPEND);
	assert_true(descriptor(t, FD_APPEND)->close_on_exec);
	assert_true(file_of(all, t, FD_GONE)->deleted);
	assert_int_equal(file_of(all, t, FD_DIR)->kind, FILE_DIRECTORY);
	assert_int_equal(file_of(all, t, FD_NULL)->kind, FILE_MEMORY_DEVICE);
	assert_int_equal(file_of(all, t, FD_MEMFD)->kind, FILE_MEMFD);
	assert_int_equal(file_of(all, t, FD_MEMFD)->memfd_seals, F_SEAL_GROW);
}

static void check_pipes(const Icp__OpenFiles *all, const Icp__FileTable *t)
{
	const Icp__OpenFile *in = file_of(all, t, FD_IN), *out = file_of(all, t, FD_OUT);
	const Icp__PipeContent *c = content_of(all, in->inode);

	assert_int_equal(in->kind, FILE_PIPE);
	assert_int_equal(in->inode, out->inode);
	assert_int_not_equal(in->id, out->id);
	assert_int_equal(c->data.len, 15);
	assert_memory_equal(c->data.data, "bytes in a pipe", 15);
	assert_int_equal(c->capacity, 65536);
	assert_int_equal(c->n_packets, 0);
	c = content_of(all, file_of(all, t, FD_PACKET_IN)->inode);
	assert_int_equal(c->n_packets, 2);
	assert_int_equal(c->packets[0], 3);
	assert_int_equal(c->packets[1], 6);
	assert_memory_equal(c->data.data, "onepacket", 9);
}

static void open_files(void **state)
{
	static const struct scene scene = {set_up_files, files_unchanged};
	struct child c = child_start(&scene);
	Icp__OpenFiles *all;
	Icp__FileTable *t;
	struct dump d;

	dump_open(&d, &c.pid, 1);
	dump_take(&d);
	t = blob_of(d.image[0].blobs, d.image[0].n_blobs, "files",
		    &icp__file_table__descriptor);
	all = blob_of(d.m.blobs, d.m.n_blobs, "files", &icp__open_files__descriptor);
	check_kinds(all, t, c.board->text);
	check_pipes(all, t);
	unlink(c.board->text);
	msg_free(t);
	msg_free(all);
	dump_close(&d);
	assert_int_equal(child_end(&c), 0);
}

static int shared_fd, shared_pipe[2];

static void set_up_child(struct board *b)
{
	place(open("/usr", O_RDONLY | O_DIRECTORY), FD_DIR, false);
}

/* Two children that have a description from their parent, and one each of their own. */
static void shared_by_fork(void **state)
{
	static const struct scene scene = {set_up_child, NULL};
	struct child a, b;
	Icp__OpenFiles *all;
	Icp__FileTable *t[2];
	struct dump d;
	pid_t pids[2];

	shared_fd = open("/usr", O_RDONLY | O_DIRECTORY);
	assert_int_equal(pipe(shared_pipe), 0);
	assert_int_equal(write(shared_pipe[1], "x", 1), 1);
	a = child_start(&scene);
	b = child_start(&scene);
	pids[0] = a.pid;
	pids[1] = b.pid;
	dump_open(&d, pids, 2);
	dump_take(&d);
	for (unsigned i = 0; i < 2; i++)
		t[i] = blob_of(d.image[i].blobs, d.image[i].n_blobs, "files",
			       &icp__file_table__descriptor);
	all = blob_of(d.m.blobs, d.m.n_blobs, "files", &icp__open_files__descriptor);
	assert_int_equal(descriptor(t[0], (uint32_t)shared_fd)->file,
			 descriptor(t[1], (uint32_t)shared_fd)->file);
	assert_int_not_equal(descriptor(t[0], FD_DIR)->file, descriptor(t[1], FD_DIR)->file);
	assert_int_not_equal(descriptor(t[0], FD_DIR)->file,
			     descriptor(t[0], (uint32_t)shared_fd)->file);
	assert_int_equal(
		content_of(all, file_of(all, t[1], (uint32_t)shared_pipe[0])->inode)->data.len,
		1);
	for (unsigned i = 0; i < 2; i++)
		msg_free(t[i]);
	msg_free(all);
	dump_close(&d);
	assert_int_equal(child_end(&a), 0);
	assert_int_equal(child_end(&b), 0);
	close(shared_fd);
	close(shared_pipe[0]);
	close(shared_pipe[1]);
}

static void set_up_nothing(struct board *b)
{
	close_range(FD_FILE, ~0u, 0);
}

static void set_up_socket(struct board *b)
{
	place(socket(AF_PACKET, SOCK_RAW, 0), FD_FILE, false);
}

static void set_up_userfaultfd(struct board *b)
{
	place((int)syscall(SYS_userfaultfd, O_CLOEXEC), FD_FILE, false);
}

static void set_up_eventfd(struct board *b)
{
	place(eventfd(0, 0), FD_FILE, false);
}

static void set_up_deleted(struct board *b)
{
	char gone[SCRATCH_MAX];
	int fd = open(mkdtemp(scratch(gone, "state")), O_RDONLY | O_DIRECTORY);

	rmdir(gone);
	place(fd, FD_FILE, false);
}

static void set_up_deleted_path(struct board *b)
{
	char gone[SCRATCH_MAX];
	int made = mkstemp(scratch(gone, "state")), fd = open(gone, O_PATH);

	close(made);
	unlink(gone);
	place(fd, FD_FILE, false);
}

static void set_up_deleted_lease(struct board *b)
{
	char gone[SCRATCH_MAX];
	int fd = mkstemp(scratch(gone, "state"));

	unlink(gone);
	fcntl(fd, F_SETLEASE, F_WRLCK);
	place(fd, FD_FILE, false);
}

static void check_says(void (*set_up)(struct board *b), const char *what)
{
	const struct scene scene = {set_up, NULL};
	struct child c = child_start(&scene);
	struct dump d;
	int err;

	dump_open(&d, &c.pid, 1);
	err = state_check(&d.p[0]);
	if (!what && err)
		fail_msg("refused: %s", err_text(err));
	if (what) {
		assert_int_equal(err, -EOPNOTSUPP);
		if (!strstr(err_text(err), what) || !strstr(err_text(err), "descriptor 40 is"))
			fail_msg("says: %s", err_text(err));
	}
	d.n = 1;
	dump_close(&d);
	assert_int_equal(child_end(&c), 0);
}

static void refusals(void **state)
{
	char deleted[SCRATCH_MAX + 48];

	check_says(set_up_nothing, NULL);
	check_says(set_up_socket, "a socket (socket:[");
	check_says(set_up_userfaultfd, "a userfaultfd");
	check_says(set_up_eventfd, NULL);
	snprintf(deleted, sizeof(deleted), "a directory that was deleted (%s/icp-state-",
		 scratch_top());
	check_says(set_up_deleted, deleted);
	check_says(set_up_deleted_path, "a path that was deleted");
	check_says(set_up_deleted_lease, "a deleted file with a lease on it");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(open_files),
		cmocka_unit_test(shared_by_fork),
		cmocka_unit_test(refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
