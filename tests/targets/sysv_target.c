// SPDX-License-Identifier: GPL-2.0
/*
 * sysv_target SCENE DIR KEY ...: processes that share System V segments and check every byte of them.
 *
 *     ring DIR KEY ME N PAGES    one of N unrelated processes; 0 makes the segment, the others attach it
 *     family DIR KEY N PAGES     a parent and N - 1 children forked after the attach; KEY 0: IPC_PRIVATE;
 *                                with a sixth argument the segment is removed once it is attached
 *     many DIR KEY SEGMENTS      one process and a child, KEY, KEY + 1...
 *     attach DIR KEY             one segment attached in every way
 *     lone DIR KEY PAGES         a segment that nobody attaches
 *     calls DIR KEY              semaphores with adjustments, a queue with messages, processes that wait for them
 *
 * Page 0 of a segment has a token that goes round. The others belong to one process each, which knows what it wrote
 * into them last: own memory and segment must agree at any time. Each says DIR/ready.ME, goes on until there is DIR/go
 * (writes nothing, and says DIR/still.ME, while there is DIR/quiet), and
 * ends with status 0 when all was right; else DIR/wrong says what was not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MANY_PAGES 4

static const char *dir;

static void wrong(const char *fmt, ...)
{
	char path[512];
	va_list args;
	int fd;

	snprintf(path, sizeof(path), "%s/wrong", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
	va_start(args, fmt);
	vdprintf(fd, fmt, args);
	va_end(args);
	dprintf(fd, "\n");
	_exit(1);
}

#define check(what)                                                                            \
	do {                                                                                   \
		if (!(what))                                                                   \
			wrong("%s:%d: %s (errno %d)", __FILE__, __LINE__, #what, errno);       \
	} while (0)

static bool is_there(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return !access(path, F_OK);
}

static void say(const char *what, int me)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s.%d", dir, what, me);
	fd = open(path, O_WRONLY | O_CREAT, 0666);
	check(fd >= 0);
	close(fd);
}

static void nap_us(long us)
{
	struct timespec t = {0, us * 1000};

	nanosleep(&t, NULL);
}

/* ---- a process at work on a segment ---- */

struct worker {
	volatile uint64_t *token;
	char *seg;
	int me, n;
	size_t pages;
	uint64_t count, seen, *wrote; /* per page: what was written last, 0: nothing */
	int pipe[2];
};

static void paint(uint64_t *words, size_t page, uint64_t count)
{
	for (size_t i = 0; i < PAGE / 8; i++)
		words[i] = count ? (page + 1) * 0x9e3779b97f4a7c15u +
					   (count + i) * 0xc2b2ae3d27d4eb4fu
				 : 0;
}

static void check_page(const struct worker *w, size_t page)
{
	uint64_t want[PAGE / 8];

	paint(want, page, w->wrote[page]);
	if (memcmp(want, w->seg + page * PAGE, PAGE))
		wrong("worker %d: page %zu is not as it was written (%lu)", w->me, page,
		      w->wrote[page]);
}

/* By a store, and every third time by read(2) into the segment. */
static void write_page(struct worker *w, size_t page)
{
	uint64_t data[PAGE / 8];

	w->count++;
	paint(data, page, w->count);
	if (w->count % 3) {
		memcpy(w->seg + page * PAGE, data, PAGE);
	} else {
		check(write(w->pipe[1], data, PAGE) == PAGE);
		check(read(w->pipe[0], w->seg + page * PAGE, PAGE) == PAGE);
	}
	w->wrote[page] = w->count;
}

static void begin(struct worker *w, char *seg, int me, int n, size_t pages)
{
	*w = (struct worker){.token = (volatile uint64_t *)seg,
			     .seg = seg,
			     .me = me,
			     .n = n,
			     .pages = pages};
	w->wrote = calloc(pages, sizeof(*w->wrote));
	check(w->wrote && !pipe(w->pipe));
}

static void step(struct worker *w)
{
	size_t mine = (w->pages - 1 - (size_t)w->me + (size_t)w->n - 1) / (size_t)w->n;
	size_t page;
	uint64_t turn;

	if (mine) {
		page = 1 + (size_t)w->me + (w->count * 7919 % mine) * (size_t)w->n;
		check_page(w, page);
		write_page(w, page);
	}
	turn = *w->token;
	if (turn < w->seen)
		wrong("worker %d: the token went back from %lu to %lu", w->me, w->seen, turn);
	if (turn % (uint64_t)w->n == (uint64_t)w->me)
		*w->token = ++turn;
	w->seen = turn;
}

static void check_all(const struct worker *w)
{
	for (size_t page = 1 + (size_t)w->me; page < w->pages; page += (size_t)w->n)
		check_page(w, page);
}

static void work(struct worker *w)
{
	say("ready", w->me);
	while (!is_there("go")) {
		for (int i = 0; i < 4 && !is_there("quiet"); i++)
			step(w);
		if (is_there("quiet"))
			say("still", w->me);
		nap_us(500);
	}
	check_all(w);
}

/* ---- scenes ---- */

static void ring(key_t key, char **argv)
{
	int me = atoi(argv[0]), n = atoi(argv[1]);
	size_t pages = strtoul(argv[2], NULL, 10);
	struct worker w;
	int id;
	char *seg;

	do {
		id = me ? shmget(key, 0, 0)
			: shmget(key, pages * PAGE, IPC_CREAT | IPC_EXCL | 0640);
		if (id < 0)
			nap_us(1000);
	} while (id < 0 && me);
	check(id >= 0);
	seg = shmat(id, NULL, 0);
	check(seg != (void *)-1);
	begin(&w, seg, me, n, pages);
	work(&w);
	check(!shmdt(seg));
}

static void family(key_t key, char **argv, bool removed)
{
	int n = atoi(argv[0]), me = 0, status;
	size_t pages = strtoul(argv[1], NULL, 10);
	int id = shmget(key, pages * PAGE, IPC_CREAT | IPC_EXCL | 0600);
	char *seg = shmat(id, NULL, 0);
	struct shmid_ds ds;
	struct worker w;

	check(id >= 0 && seg != (void *)-1);
	if (removed)
		check(!shmctl(id, IPC_RMID, NULL));
	for (int i = 1; i < n && !me; i++) {
		pid_t pid = fork();

		check(pid >= 0);
		if (!pid)
			me = i;
	}
	begin(&w, seg, me, n, pages);
	work(&w);
	if (me)
		_exit(0);
	for (int i = 1; i < n; i++)
		check(wait(&status) > 0 && WIFEXITED(status) && !WEXITSTATUS(status));
	/* by its id: the same as it was, or we would not find it */
	check(!shmctl(id, IPC_STAT, &ds) && ds.shm_segsz == pages * PAGE);
	check(ds.shm_nattch == 1 && !!(ds.shm_perm.mode & SHM_DEST) == removed);
	check(!shmdt(seg) && (removed || !shmctl(id, IPC_RMID, NULL)));
}

static void many(key_t key, char **argv)
{
	size_t n = strtoul(argv[0], NULL, 10);
	struct worker *w = calloc(n, sizeof(*w));
	int me, status;

	check(w);
	for (size_t i = 0; i < n; i++) {
		int id = shmget(key + (key_t)i, MANY_PAGES * PAGE, IPC_CREAT | IPC_EXCL | 0600);
		char *seg = shmat(id, NULL, 0);

		check(id >= 0 && seg != (void *)-1);
		begin(&w[i], seg, 0, 2, MANY_PAGES);
		close(w[i].pipe[0]);
		close(w[i].pipe[1]);
	}
	me = fork() ? 0 : 1;
	check(!pipe(w[0].pipe));
	for (size_t i = 0; i < n; i++) {
		w[i].me = me;
		memcpy(w[i].pipe, w[0].pipe, sizeof(w[i].pipe));
	}
	say("ready", me);
	while (!is_there("go"))
		for (size_t i = 0; i < n; i++)
			step(&w[i]);
	for (size_t i = 0; i < n; i++)
		check_all(&w[i]);
	if (me)
		_exit(0);
	check(wait(&status) > 0 && WIFEXITED(status) && !WEXITSTATUS(status));
	for (size_t i = 0; i < n; i++)
		check(!shmdt(w[i].seg));
}

/* What must be as it was: addresses, rights, holes, the number of attachments. */
static void attach(key_t key)
{
	int id = shmget(key, 64 * PAGE, IPC_CREAT | IPC_EXCL | 0700);
	char *rw = shmat(id, NULL, 0), *ro = shmat(id, NULL, SHM_RDONLY),
	     *ex = shmat(id, NULL, SHM_EXEC), *part = shmat(id, NULL, 0);
	unsigned char vec[8];
	struct shmid_ds ds;
	struct worker w;

	check(id >= 0 && rw != (void *)-1 && ro != (void *)-1 && ex != (void *)-1 &&
	      part != (void *)-1);
	/* the first eight pages gone, four in the middle, the last; two may only be read */
	check(!munmap(part, 8 * PAGE) && !munmap(part + 20 * PAGE, 4 * PAGE) &&
	      !munmap(part + 63 * PAGE, PAGE));
	check(!mprotect(part + 30 * PAGE, 2 * PAGE, PROT_READ));
	begin(&w, rw, 0, 1, 64);
	work(&w);
	for (size_t i = 1; i < 64; i++) {
		check(!memcmp(rw + i * PAGE, ro + i * PAGE, PAGE));
		check(!memcmp(rw + i * PAGE, ex + i * PAGE, PAGE));
		if (i >= 8 && i < 63 && (i < 20 || i >= 24))
			check(!memcmp(rw + i * PAGE, part + i * PAGE, PAGE));
	}
	check(mprotect(ro, PAGE, PROT_READ | PROT_WRITE) && errno == EACCES);
	check(!mprotect(part + 30 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE));
	part[30 * PAGE] = 77;
	check(rw[30 * PAGE] == 77);
	check(mincore(part + 20 * PAGE, PAGE, vec) && errno == ENOMEM);
	check(mincore(part, PAGE, vec) && errno == ENOMEM);
	check(!shmctl(shmget(key, 0, 0), IPC_STAT, &ds) && (ds.shm_perm.mode & 0777) == 0700);
	check(!shmdt(ex) && !shmdt(ro) && !shmdt(part) && !shmdt(rw));
	check(!shmctl(shmget(key, 0, 0), IPC_STAT, &ds) && !ds.shm_nattch);
}

/* Filled, detached; attached again by its key at the end. */
static void lone(key_t key, char **argv)
{
	size_t pages = strtoul(argv[0], NULL, 10);
	int id = shmget(key, pages * PAGE, IPC_CREAT | IPC_EXCL | 0600);
	char *seg = shmat(id, NULL, 0);
	struct worker w;

	check(id >= 0 && seg != (void *)-1);
	begin(&w, seg, 0, 1, pages);
	for (size_t i = 1; i < pages; i++)
		write_page(&w, i);
	check(!shmdt(seg));
	say("ready", 0);
	while (!is_there("go"))
		nap_us(1000);
	w.seg = shmat(shmget(key, 0, 0), NULL, SHM_RDONLY);
	check(w.seg != (void *)-1);
	check_all(&w);
}

/* ---- semaphores and message queues ---- */

struct message {
	long type;
	char text[64];
};

static const struct message messages[] = {{3, "three"}, {1, "one"}, {2, ""}, {1, "one more"}};
#define MESSAGES (sizeof(messages) / sizeof(*messages))

static void sem(int id, unsigned short number, short n, int flags)
{
	struct sembuf op = {number, n, (short)flags};

	check(!semop(id, &op, 1));
}

/* Until it sleeps in this call. */
static void wait_call(pid_t pid, long nr)
{
	char path[64], text[128] = "";
	long now = -1;

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	while (now != nr) {
		FILE *file = fopen(path, "r");

		check(file);
		now = fgets(text, sizeof(text), file) ? strtol(text, NULL, 10) : -1;
		fclose(file);
		nap_us(1000);
	}
}

static pid_t start(void (*what)(int set, int queue), int set, int queue)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (!pid) {
		what(set, queue);
		_exit(0);
	}
	return pid;
}

static void hold(int set, int queue)
{
	sem(set, 0, -2, SEM_UNDO);
	sem(set, 2, 3, SEM_UNDO);
	say("ready", 1);
	while (!is_there("go"))
		nap_us(1000);
}

static void wait_sem(int set, int queue)
{
	sem(set, 1, -1, 0);
}

static void wait_message(int set, int queue)
{
	struct message m;

	check(msgrcv(queue, &m, sizeof(m.text), 99, 0) == 4 && !memcmp(m.text, "last", 4));
}

static void ended(pid_t pid)
{
	int status;

	check(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status));
}

static void check_calls(int set, int queue, const pid_t *kids)
{
	struct message m = {99, "last"};
	unsigned short values[3];
	struct msqid_ds ds;

	check(!semctl(set, 0, GETALL, values));
	/* the first may have let go already */
	check((values[0] == 2 && values[2] == 4) || (values[0] == 4 && values[2] == 1));
	check(values[1] == 0 && semctl(set, 1, GETNCNT) == 1);
	check(semctl(set, 0, GETPID) == getpid() || semctl(set, 0, GETPID) == kids[0]);
	ended(kids[0]);
	check(semctl(set, 0, GETVAL) == 4 && semctl(set, 2, GETVAL) == 1);
	check(!msgctl(queue, IPC_STAT, &ds) && ds.msg_qnum == MESSAGES &&
	      ds.msg_qbytes == 5000 && (ds.msg_perm.mode & 0777) == 0620);
	sem(set, 1, 1, 0);
	ended(kids[1]);
	check(!msgsnd(queue, &m, 4, 0));
	ended(kids[2]);
	for (size_t i = 0; i < MESSAGES; i++) {
		size_t len = strlen(messages[i].text);

		check(msgrcv(queue, &m, sizeof(m.text), 0, IPC_NOWAIT) == (ssize_t)len);
		check(m.type == messages[i].type && !memcmp(m.text, messages[i].text, len));
	}
}

static void calls(key_t key)
{
	int set = semget(key, 3, IPC_CREAT | IPC_EXCL | 0600),
	    queue = msgget(key, IPC_CREAT | IPC_EXCL | 0620);
	unsigned short values[3] = {5, 0, 1};
	struct msqid_ds ds;
	pid_t kids[3];

	check(set >= 0 && queue >= 0 && !semctl(set, 0, SETALL, values));
	check(!msgctl(queue, IPC_STAT, &ds));
	ds.msg_qbytes = 5000;
	check(!msgctl(queue, IPC_SET, &ds));
	for (size_t i = 0; i < MESSAGES; i++)
		check(!msgsnd(queue, &messages[i], strlen(messages[i].text), 0));
	kids[0] = start(hold, set, queue);
	while (!is_there("ready.1"))
		nap_us(1000);
	sem(set, 0, -1, SEM_UNDO);
	kids[1] = start(wait_sem, set, queue);
	kids[2] = start(wait_message, set, queue);
	while (semctl(set, 1, GETNCNT) != 1)
		nap_us(1000);
	wait_call(kids[2], SYS_msgrcv);
	say("ready", 0);
	while (!is_there("go"))
		nap_us(1000);
	check_calls(set, queue, kids);
}

int main(int argc, char **argv)
{
	key_t key;

	if (argc < 4)
		return 2;
	dir = argv[2];
	key = (key_t)strtol(argv[3], NULL, 0);
	if (!strcmp(argv[1], "ring") && argc == 7)
		return ring(key, argv + 4), 0;
	if (!strcmp(argv[1], "family") && argc >= 6)
		return family(key, argv + 4, argc > 6), 0;
	if (!strcmp(argv[1], "many") && argc == 5)
		return many(key, argv + 4), 0;
	if (!strcmp(argv[1], "attach"))
		return attach(key), 0;
	if (!strcmp(argv[1], "calls"))
		return calls(key), 0;
	if (!strcmp(argv[1], "lone") && argc == 5)
		return lone(key, argv + 4), 0;
	return 2;
}
