// SPDX-License-Identifier: GPL-2.0
/* openfiles SCENE DIR: as reborn does, but about open files and the locks on them. */
#include "reborn.h"

#include <sys/file.h>
#include <sys/sendfile.h>

static int open_new(const char *name, int flags)
{
	int fd = open(in_dir(name), flags | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	check(fd >= 0);
	return fd;
}

/* ---- locks ---- */

/* What this process has locked, as the kernel tells. */
static char *locks_of(const int *fds, size_t n)
{
	char *out = calloc(1, 1 << 14), *end = out;

	for (size_t i = 0; i < n; i++) {
		char path[64], *info;

		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fds[i]);
		info = slurp(path);
		for (char *line = strtok(info, "\n"); line; line = strtok(NULL, "\n"))
			if (!strncmp(line, "lock:", 5)) /* who took it is not kept */
				end += sprintf(end, "%d: %.22s%s\n", fds[i], line + 9,
					       strrchr(line, ':'));
		free(info);
	}
	return out;
}

static int lock(int fd, int how, short type, off_t start, off_t len)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(fd, how, &l);
}

/* A child that waits for a lock; it ends when it has it. */
static pid_t waiter(void (*wait_it)(void))
{
	pid_t pid = fork();

	check(pid >= 0);
	if (!pid) {
		wait_it();
		_exit(0);
	}
	return pid;
}

static void wait_posix(void)
{
	int fd = open(in_dir("ranges"), O_RDWR);

	check(!lock(fd, F_SETLKW, F_WRLCK, 200, 100));
}

static void wait_flock(void)
{
	int fd = open(in_dir("whole"), O_RDONLY);

	check(!flock(fd, LOCK_EX));
}

/* Asleep in that system call. */
static void wait_until_in(pid_t pid, long nr)
{
	char path[64], *text;
	bool there = false;

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	while (!there) {
		text = slurp(path);
		there = *text != 'r' && strtol(text, NULL, 10) == nr;
		free(text);
		nap_ms(2);
	}
}

static void assert_waiting(pid_t pid)
{
	check(waitpid(pid, NULL, WNOHANG) == 0);
}

static void assert_ends(pid_t pid)
{
	int status;

	check(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status));
}

/* Somebody else who tries. */
static void assert_locked(void)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (!pid) {
		int whole = open(in_dir("whole"), O_RDONLY), ofd = open(in_dir("ofd"), O_RDWR),
		    ranges = open(in_dir("ranges"), O_RDWR);

		check(flock(whole, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK);
		check(lock(ofd, F_OFD_SETLK, F_WRLCK, 10, 1) && errno == EAGAIN);
		check(!lock(ofd, F_OFD_SETLK, F_WRLCK, 0, 10));
		check(lock(ranges, F_SETLK, F_WRLCK, 50, 1) && errno == EAGAIN);
		check(!lock(ranges, F_SETLK, F_RDLCK, 50, 1));
		check(lock(ranges, F_SETLK, F_RDLCK, 299, 1) && errno == EAGAIN);
		check(!lock(ranges, F_SETLK, F_WRLCK, 300, 700));
		check(lock(ranges, F_SETLK, F_RDLCK, 1 << 30, 1) && errno == EAGAIN);
		_exit(0);
	}
	assert_ends(pid);
}

static void scene_locks(void)
{
	int whole = open_new("whole", O_RDWR), again = dup(whole),
	    ofd = open_new("ofd", O_RDWR), ranges = open_new("ranges", O_RDWR),
	    other = open(in_dir("ranges"), O_RDWR | O_CLOEXEC), leased, written;
	int fds[] = {whole, again, ofd, ranges, other, -1, -1};
	pid_t for_range, for_whole, holder;
	char *before, *now;

	close(open_new("leased", O_RDWR));
	leased = open(in_dir("leased"), O_RDONLY | O_CLOEXEC);
	written = open_new("written", O_RDWR);
	fds[5] = leased;
	fds[6] = written;
	check(!fcntl(leased, F_SETLEASE, F_RDLCK));
	check(!fcntl(written, F_SETLEASE, F_WRLCK));
	check(!flock(again, LOCK_EX));
	check(!lock(ofd, F_OFD_SETLK, F_RDLCK, 10, 20));
	check(!lock(ranges, F_SETLK, F_RDLCK, 0, 100));
	check(!lock(other, F_SETLK, F_WRLCK, 200, 100));
	check(!lock(ranges, F_SETLK, F_WRLCK, 1000, 0));
	/* by fork: the lock is of the description; whoever waits here shares nothing of it */
	holder = fork();
	check(holder >= 0);
	if (!holder) {
		wait_go();
		check(!close(again) && !lock(ofd, F_OFD_SETLK, F_RDLCK, 10, 20));
		_exit(0);
	}
	for_range = waiter(wait_posix);
	wait_until_in(for_range, SYS_fcntl);
	for_whole = waiter(wait_flock);
	/* its own, not the inherited ones */
	wait_until_in(for_whole, SYS_flock);
	before = locks_of(fds, 7);
	ready();
	wait_go();
	now = locks_of(fds, 7);
	if (strcmp(before, now))
		wrong("before:\n%s\nafter:\n%s", before, now);
	check(fcntl(leased, F_GETLEASE) == F_RDLCK && fcntl(written, F_GETLEASE) == F_WRLCK);
	assert_ends(holder);
	assert_waiting(for_range);
	assert_waiting(for_whole);
	assert_locked();
	check(!lock(ranges, F_SETLK, F_UNLCK, 200, 100));
	assert_ends(for_range);
	check(!flock(whole, LOCK_UN));
	assert_ends(for_whole);
}

/* A lock, to be in somebody's way. */
static void scene_one_flock(void)
{
	check(!flock(open_new("whole", O_RDWR), LOCK_EX));
	ready();
	wait_go();
}

static void scene_one_posix(void)
{
	check(!lock(open_new("ranges", O_RDWR), F_SETLK, F_WRLCK, 10, 10));
	ready();
	wait_go();
}

static void scene_one_ofd(void)
{
	check(!lock(open_new("ranges", O_RDWR), F_OFD_SETLK, F_WRLCK, 10, 10));
	ready();
	wait_go();
}

/* ---- deleted files ---- */

#define PAGES 600

static bool page_is(int fd, size_t i, uint64_t seed)
{
	char page[PAGE];

	return pread(fd, page, PAGE, (off_t)(i * PAGE)) == PAGE && painted(page, seed);
}

static void put_page(int fd, size_t i, uint64_t seed)
{
	char page[PAGE];

	paint(page, seed);
	check(pwrite(fd, page, PAGE, (off_t)(i * PAGE)) == PAGE);
}

/* One that is written all the time: it is as it was when the memory was as it is. */
static void write_on(int fd, uint64_t *seeds)
{
	uint64_t n = PAGES;

	ready();
	while (access(in_dir("go"), F_OK)) {
		size_t i = n * 7919 % PAGES;

		put_page(fd, i, n);
		seeds[i] = n++;
		if (n % 8 == 0)
			nap_ms(1);
	}
	/* the one that was being written when it stopped: either */
	for (size_t i = 0; i < PAGES; i++)
		check(page_is(fd, i, seeds[i]));
}

static void scene_written(void)
{
	int fd = open_new("gone", O_RDWR);
	uint64_t *seeds = calloc(PAGES, sizeof(*seeds));

	for (size_t i = 0; i < PAGES; i++)
		put_page(fd, i, seeds[i] = i);
	check(!unlink(in_dir("gone")));
	write_on(fd, seeds);
	check(access(in_dir("gone"), F_OK));
}

/* Nobody writes it after the first version. */
static void scene_holes(void)
{
	const off_t far = 1ll << 32;
	int fd = open_new("gone", O_RDWR), same = dup(fd), mine, written;
	struct stat st;
	char buf[16];
	pid_t pid;

	put_page(fd, 0, 5);
	put_page(fd, 3, 6);
	check(pwrite(fd, "the end", 7, far) == 7);
	written = open(in_dir("gone"), O_WRONLY | O_APPEND | O_CLOEXEC);
	mine = open(in_dir("gone"), O_RDONLY | O_CLOEXEC);
	check(lseek(fd, 3 * PAGE, SEEK_SET) == 3 * PAGE && lseek(mine, 1, SEEK_SET) == 1);
	check(!unlink(in_dir("gone")) && !fchmod(fd, 0640));
	pid = fork();
	check(pid >= 0);
	if (!pid) { /* shares the offset */
		wait_go();
		check(lseek(fd, PAGE, SEEK_CUR) == 4 * PAGE);
		_exit(0);
	}
	ready();
	wait_go();
	assert_ends(pid);
	check(lseek(same, 0, SEEK_CUR) == 4 * PAGE && lseek(mine, 0, SEEK_CUR) == 1);
	check(page_is(fd, 0, 5) && page_is(mine, 3, 6));
	check(pread(fd, buf, 16, far) == 7 && !memcmp(buf, "the end", 7));
	check(pread(fd, buf, 4, 2 * PAGE) == 4 && !memcmp(buf, "\0\0\0\0", 4));
	check(!fstat(fd, &st) && st.st_size == far + 7 && st.st_nlink == 0);
	check(st.st_blocks * 512 <= 1 << 20 && (st.st_mode & 07777) == 0640);
	check(write(written, "!", 1) == 1 && pread(mine, buf, 16, far) == 8 && buf[7] == '!');
	check(fcntl(written, F_GETFL) & O_APPEND);
}

/* Mapped in part, and through /dev/shm, where shm_unlink() came early. */
static void scene_mapped(void)
{
	char name[64];
	int fd, pipes[2];
	char *map, page[PAGE];
	off_t at = 0;

	snprintf(name, sizeof(name), "/dev/shm/icp-openfiles-%d", getpid());
	fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	check(fd >= 0 && !unlink(name) && !ftruncate(fd, 8 * PAGE));
	map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 2 * PAGE);
	check(map != MAP_FAILED);
	for (size_t i = 0; i < 8; i++)
		put_page(fd, i, i);
	paint(map, 42);
	check(!pipe2(pipes, O_CLOEXEC) && sendfile(pipes[1], fd, &at, PAGE) == PAGE);
	ready();
	wait_go();
	check(page_is(fd, 2, 42) && painted(map + PAGE, 3) && page_is(fd, 7, 7));
	paint(map + PAGE, 77);
	check(page_is(fd, 3, 77));
	put_page(fd, 2, 78);
	check(painted(map, 78));
	check(read(pipes[0], page, PAGE) == PAGE && painted(page, 0));
	check(sendfile(pipes[1], fd, &at, PAGE) == PAGE && at == 2 * PAGE);
	check(read(pipes[0], page, PAGE) == PAGE && painted(page, 1));
}

/* A file without a name gets one in the end. */
static void scene_nameless(void)
{
	int fd = open(in_dir(""), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), named, flags;
	char path[64];

	check(fd >= 0);
	put_page(fd, 0, 9);
	flags = fcntl(fd, F_GETFL);
	ready();
	wait_go();
	check(fcntl(fd, F_GETFL) == flags && flags & O_TMPFILE);
	put_page(fd, 1, 10);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	check(!linkat(AT_FDCWD, path, AT_FDCWD, in_dir("named"), AT_SYMLINK_FOLLOW));
	named = open(in_dir("named"), O_RDONLY);
	check(page_is(named, 0, 9) && page_is(named, 1, 10));
	check(!unlink(in_dir("named"))); /* it may be restarted once more */
}

/* Names that changed: the other link stays, renamed, and one that only looks deleted. */
static void scene_names(void)
{
	int linked = open_new("first", O_RDWR), renamed = open_new("old", O_RDWR),
	    odd = open_new("odd (deleted)", O_RDWR);
	struct stat st, want;
	char buf[8];

	unlink(in_dir("second"));
	check(write(linked, "linked", 6) == 6 && write(renamed, "renamed", 7) == 7);
	check(write(odd, "odd", 3) == 3);
	check(!link(in_dir("first"), in_dir("second")) && !unlink(in_dir("first")));
	check(!rename(in_dir("old"), in_dir("new")));
	ready();
	wait_go();
	check(lseek(linked, 0, SEEK_CUR) == 6 && lseek(odd, 0, SEEK_CUR) == 3);
	check(!fstat(linked, &st) && !stat(in_dir("second"), &want));
	check(st.st_ino == want.st_ino && pread(linked, buf, 8, 0) == 6);
	check(!memcmp(buf, "linked", 6));
	check(!fstat(renamed, &st) && !stat(in_dir("new"), &want) && st.st_ino == want.st_ino);
	check(!fstat(odd, &st) && !stat(in_dir("odd (deleted)"), &want) &&
	      st.st_ino == want.st_ino);
}

/* ---- files that others change ---- */

static void scene_log(void)
{
	int log = open_new("log", O_WRONLY | O_APPEND), data = open_new("data", O_RDWR), in;
	char *text;

	check(write(log, "one\n", 4) == 4 && write(data, "12345678", 8) == 8);
	close(open_new("in", O_WRONLY));
	in = open(in_dir("in"), O_RDONLY | O_CLOEXEC);
	ready();
	wait_go();
	check(write(log, "two\n", 4) == 4 && write(data, "9", 1) == 1);
	text = slurp(in_dir("log"));
	if (strcmp(text, "one\ntwo\n"))
		wrong("the log: %s", text);
	text = slurp(in_dir("data"));
	if (strcmp(text, "123456789"))
		wrong("the data: %s", text);
	text = slurp(in_dir("in"));
	check(lseek(in, 0, SEEK_CUR) == 0 && lseek(in, 0, SEEK_END) == (off_t)strlen(text));
}

/* ---- pipes ---- */

/* The other end is closed by everybody: what is in it can be read, then it ends. */
static void scene_closed_pipe(void)
{
	int left[2], broken[2];
	char buf[16];

	signal(SIGPIPE, SIG_IGN);
	check(!pipe2(left, O_CLOEXEC) && !pipe2(broken, O_CLOEXEC));
	check(write(left[1], "the rest", 8) == 8 && !close(left[1]) && !close(broken[0]));
	ready();
	wait_go();
	check(read(left[0], buf, 16) == 8 && !memcmp(buf, "the rest", 8));
	check(read(left[0], buf, 16) == 0);
	check(write(broken[1], "x", 1) == -1 && errno == EPIPE);
}

/* Each opened it in its own way; nobody else knows it by its name. */
static void scene_fifos(void)
{
	int in, out, both;
	char buf[16];

	unlink(in_dir("fifo"));
	unlink(in_dir("gone"));
	check(!mkfifo(in_dir("fifo"), 0600) && !mkfifo(in_dir("gone"), 0600));
	in = open(in_dir("fifo"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	out = open(in_dir("fifo"), O_WRONLY | O_CLOEXEC);
	both = open(in_dir("gone"), O_RDWR | O_CLOEXEC);
	check(in >= 0 && out >= 0 && both >= 0);
	check(!unlink(in_dir("gone")));
	check(write(out, "named", 5) == 5 && write(both, "nameless", 8) == 8);
	ready();
	wait_go();
	check(read(in, buf, 16) == 5 && !memcmp(buf, "named", 5));
	check(read(in, buf, 16) == -1 && errno == EAGAIN && !close(out));
	check(read(in, buf, 16) == 0);
	check(read(both, buf, 16) == 8 && !memcmp(buf, "nameless", 8));
	check(write(both, "x", 1) == 1 && read(both, buf, 16) == 1);
}

/* Its reader is a child that isn't saved with it. */
static void scene_outside(void)
{
	int ends[2];
	char c;

	check(!pipe(ends));
	if (!fork()) { /* will be nobody's child */
		if (!fork()) {
			close(ends[1]);
			setsid();
			_exit(read(ends[0], &c, 1) < 0);
		}
		_exit(0);
	}
	wait(NULL);
	close(ends[0]);
	ready();
	wait_go();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*play)(void);
	} scenes[] = {
		{"locks", scene_locks},		{"one_flock", scene_one_flock},
		{"one_posix", scene_one_posix}, {"one_ofd", scene_one_ofd},
		{"written", scene_written},	{"holes", scene_holes},
		{"mapped", scene_mapped},	{"nameless", scene_nameless},
		{"names", scene_names},		{"log", scene_log},
		{"fifos", scene_fifos},		{"closed_pipe", scene_closed_pipe},
		{"outside", scene_outside},
	};

	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++)
		if (!strcmp(argv[1], scenes[i].name))
			return scenes[i].play(), 0;
	return 2;
}
