// SPDX-License-Identifier: GPL-2.0
/* The verbs over a repository. The repositories are made here, through the interface of user/image. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>
#include <zstd.h>

#include "base/io.h"
#include "image/repo.h"
#include "proc/datasyms.h"
#include "proc/maps.h"
#include "lib/scratch.h"

#include <cmocka.h>

#define PAGE 4096u
#define PID 4711u
#define SHMID 7u
#define BASE 0x7f0000000000ull /* an anonymous mapping of 64 pages */
#define SHM_BASE 0x7f1000000000ull

/* Variables of this program, which diff must find by name. */
int verbs_counter = 41;
int verbs_still = 17;
char verbs_table[3 * PAGE];

struct out {
	int status; /* of waitpid() */
	char *out, *err;
};

static void must(int err)
{
	if (err)
		fail_msg("%d: %s", err, err_text(err));
}

static void binary(char path[4096])
{
	ssize_t n = readlink("/proc/self/exe", path, 4000);
	char *tests;

	assert_true(n > 0);
	path[n] = 0;
	tests = strstr(path, "/tests/integration/");
	assert_non_null(tests);
	strcpy(tests, "/icp-bpf");
}

static char *all_of(int fd)
{
	char *text;

	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	must(io_read_all(fd, &text, NULL));
	close(fd);
	return text;
}

/* Run icp-bpf; the words end with NULL. */
static struct out icp(const char *const *words)
{
	int out = memfd_create("out", MFD_CLOEXEC), err = memfd_create("err", MFD_CLOEXEC);
	const char *argv[24] = {"icp-bpf"};
	char path[4096];
	struct out r;
	pid_t pid;

	binary(path);
	for (size_t i = 0; words[i]; i++) {
		assert_true(i + 2 < 24);
		argv[i + 1] = words[i];
	}
	assert_true(out >= 0 && err >= 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setenv("ASAN_OPTIONS", "exitcode=99", 1);
		dup2(out, 1);
		dup2(err, 2);
		execv(path, (char *const *)argv);
		_exit(126);
	}
	assert_int_equal(waitpid(pid, &r.status, 0), pid);
	r.out = all_of(out);
	r.err = all_of(err);
	return r;
}
#define ICP(...) icp((const char *const[]){__VA_ARGS__, NULL})

static void done(struct out *r)
{
	free(r->out);
	free(r->err);
}

static size_t lines(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void assert_has(const char *text, const char *word)
{
	if (!strstr(text, word))
		fail_msg("'%s' is not in:\n%s", word, text);
}

/* It ended with @status; a failure says so in one line that holds @word. */
static void expect(const struct out *r, int status, const char *word)
{
	if (!WIFEXITED(r->status) || WEXITSTATUS(r->status) != status)
		fail_msg("status %#x instead of exit %d\n%s\n%s", r->status, status, r->out,
			 r->err);
	if (!status) {
		assert_string_equal(r->err, "");
		return;
	}
	if (lines(r->err) != 1 || strncmp(r->err, "icp-bpf", 7) != 0)
		fail_msg("not one line: '%s'", r->err);
	assert_has(r->err, word);
}

static json_t *parse(const struct out *r)
{
	json_error_t why;
	json_t *j = json_loads(r->out, 0, &why);

	if (!j)
		fail_msg("%s in: %s", why.text, r->out);
	assert_int_equal(lines(r->out), 1);
	return j;
}

static json_int_t number(json_t *o, const char *key)
{
	if (!json_is_integer(json_object_get(o, key)))
		fail_msg("no number %s", key);
	return json_integer_value(json_object_get(o, key));
}

/* The first element of list @list in which @key is @value, or NULL. */
static json_t *element(json_t *list, const char *key, const char *value)
{
	json_t *o;
	size_t i;

	json_array_foreach(list, i, o)
	{
		const char *s = json_string_value(json_object_get(o, key));

		if (s && !strcmp(s, value))
			return o;
	}
	return NULL;
}

/* ---- making versions ---- */

struct job {
	char dir[SCRATCH_MAX];
	struct repo *repo;
	struct ctl *own, *shm;
	uint32_t parent;
	enum icp_codec codec;
};

static void fill(uint8_t *page, uint32_t id)
{
	uint64_t s = id * 0x9e3779b97f4a7c15ull;

	memset(page, 0, PAGE);
	for (size_t i = 0; i < PAGE / 2; i += 8) { /* half of it compresses */
		s = s * 6364136223846793005ull + 1442695040888963407ull;
		memcpy(page + i, &s, 8);
	}
	page[0] = 1;
}

static void job_open(struct job *j, enum icp_codec codec)
{
	*j = (struct job){.codec = codec};
	assert_non_null(mkdtemp(scratch(j->dir, "verbs")));
	must(repo_open(j->dir, REPO_CREATE, &j->repo));
	must(ctl_new(PID, PAGE, &j->own));
	must(ctl_new(SHMID | ICP_STREAM_SHM, PAGE, &j->shm));
}

static void job_close(struct job *j)
{
	ctl_free(j->own);
	ctl_free(j->shm);
	repo_close(j->repo);
	j->repo = NULL;
	j->own = j->shm = NULL;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

static void job_remove(struct job *j)
{
	job_close(j);
	nftw(j->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put(struct txn *t, struct ctl *c, uint64_t address, const void *data, size_t n)
{
	struct page_writer *w;

	must(txn_pages(t, ctl_stream(c), &w));
	for (size_t i = 0; i < n; i++) {
		struct page_src src = {address / PAGE + i, (const uint8_t *)data + i * PAGE,
				       NULL};

		must(page_writer_put(w, &src, 1, c));
	}
	must(txn_pages_end(t, w, false));
}

/* End @t with a manifest of these VMAs. */
static void commit(struct job *j, struct txn *t, Icp__Vma **vmas, size_t n_vmas)
{
	Icp__StateBlob blob = ICP__STATE_BLOB__INIT, *blobs = &blob;
	Icp__Process p = ICP__PROCESS__INIT, *ps = &p;
	Icp__Segment g = ICP__SEGMENT__INIT, *gs = &g;
	Icp__Thread thread = ICP__THREAD__INIT, *threads = &thread;
	Icp__Manifest m = ICP__MANIFEST__INIT;
	Icp__Job job = ICP__JOB__INIT;
	uint32_t root = PID;

	must(txn_ctl(t, j->own, false));
	must(txn_ctl(t, j->shm, false));
	blob.kind = (char *)"files";
	blob.version = 1;
	blob.data = (ProtobufCBinaryData){3, (uint8_t *)"abc"};
	thread.tid = PID;
	thread.name = (char *)"verbs";
	p.pid = PID;
	p.comm = (char *)"verbs\033[31m"; /* must not reach a terminal */
	p.cmdline = (ProtobufCBinaryData){8, (uint8_t *)"verbs\0\xff\033"};
	p.threads = &threads;
	p.n_threads = 1;
	p.blobs = &blobs;
	p.n_blobs = 1;
	p.vmas = vmas;
	p.n_vmas = n_vmas;
	p.pages = ctl_pages(j->own);
	p.zero_pages = ctl_zeros(j->own);
	g.shmid = SHMID;
	g.key = 0x2a;
	g.size = 4 * PAGE;
	job.roots = &root;
	job.n_roots = 1;
	job.label = (char *)"a label";
	job.pages = 12;
	job.pause_ns = 1200000;
	job.incremental = j->parent;
	m.arch = (char *)"x86_64";
	m.job = &job;
	m.processes = &ps;
	m.n_processes = 1;
	m.segments = &gs;
	m.n_segments = 1;
	j->parent = txn_version(t);
	must(txn_commit(t, &m));
}

static struct txn *begin(struct job *j)
{
	struct txn_config config = {.parent = j->parent, .page_size = PAGE, .codec = j->codec};
	struct txn *t;

	must(txn_begin(j->repo, &config, &t));
	return t;
}

static void commit_anon(struct job *j, struct txn *t)
{
	Icp__Vma anon = ICP__VMA__INIT, shm = ICP__VMA__INIT, *vmas[] = {&anon, &shm};

	anon.start = BASE;
	anon.end = BASE + 64 * PAGE;
	anon.prot = PROT_READ | PROT_WRITE;
	anon.kind = VMA_ANON + 1;
	anon.name = (char *)"[heap]";
	shm.start = SHM_BASE;
	shm.end = SHM_BASE + 3 * PAGE;
	shm.offset = PAGE; /* the mapping begins at the second page of the segment */
	shm.kind = VMA_SHM + 1;
	shm.shmid = SHMID;
	shm.shared = true;
	commit(j, t, vmas, 2);
}

/*
 * Three versions. 1: pages 0..39 (5 is zero), segment pages 0..3. 2: pages 3, 4 changed, 40
 * added, 7 gone. 3: page 3 changed, segment page 2 changed.
 */
static void job_make(struct job *j, enum icp_codec codec)
{
	static uint8_t buf[40 * PAGE];
	struct txn *t;

	job_open(j, codec);
	t = begin(j);
	for (uint32_t i = 0; i < 40; i++)
		fill(buf + i * PAGE, 100 + i);
	memset(buf + 5 * PAGE, 0, PAGE);
	put(t, j->own, BASE, buf, 40);
	put(t, j->shm, 0, buf + 20 * PAGE, 4);
	commit_anon(j, t);
	t = begin(j);
	fill(buf, 200);
	fill(buf + PAGE, 201);
	fill(buf + 2 * PAGE, 202);
	memmove(buf + 40 * PAGE - PAGE, buf + 2 * PAGE, PAGE);
	put(t, j->own, BASE + 3 * PAGE, buf, 2);
	must(ctl_remove(j->own, BASE / PAGE + 7, 1));
	must(ctl_set(j->own, BASE / PAGE + 40, &(struct ctl_entry){.flags = CTL_ZERO}));
	commit_anon(j, t);
	t = begin(j);
	fill(buf, 300);
	put(t, j->own, BASE + 3 * PAGE, buf, 1);
	put(t, j->shm, 2 * PAGE, buf, 1);
	commit_anon(j, t);
	job_close(j);
}

/* ---- list ---- */

static void test_list(void **state)
{
	struct job j;
	struct out r;
	json_t *all, *one;

	job_make(&j, ICP_CODEC_NONE);
	r = ICP("list", "--dir", j.dir);
	expect(&r, 0, NULL);
	assert_int_equal(lines(r.out), 4);
	assert_has(r.out, "incremental");
	assert_has(r.out, "a label");
	assert_has(r.out, "1.2ms");
	done(&r);
	r = ICP("list", "--dir", j.dir, "--verify", "--json");
	expect(&r, 0, NULL);
	all = parse(&r);
	assert_int_equal(json_array_size(json_object_get(all, "versions")), 3);
	one = json_array_get(json_object_get(all, "versions"), 2);
	assert_int_equal(number(one, "version"), 3);
	assert_int_equal(number(one, "parent"), 2);
	assert_true(json_is_true(json_object_get(one, "verified")));
	assert_true(number(one, "bytes") > 2 * PAGE);
	json_decref(all);
	done(&r);
	must(repo_open(j.dir, REPO_WRITE, &j.repo));
	txn_abort(begin(&j));
	repo_close(j.repo);
	j.repo = NULL;
	r = ICP("list", "--dir", j.dir);
	assert_int_equal(lines(r.out), 4);
	assert_null(strstr(r.out, "aborted"));
	done(&r);
	r = ICP("list", "--dir", j.dir, "--all");
	expect(&r, 0, NULL);
	assert_int_equal(lines(r.out), 5);
	assert_has(r.out, "aborted");
	done(&r);
	job_remove(&j);
}

/* ---- show ---- */

static void test_show(void **state)
{
	struct job j;
	struct out r;

	job_make(&j, ICP_CODEC_NONE);
	r = ICP("show", "--dir", j.dir, "--vmas", "--files", "--control");
	expect(&r, 0, NULL);
	assert_has(r.out, "version 3: incremental, parent 2");
	assert_has(r.out, "process 4711: verbs ??\n"); /* 0xff, ESC */
	assert_null(strchr(r.out, '\033'));
	assert_has(r.out, "thread   4711 verbs");
	assert_has(r.out, "7f0000000000-7f0000040000  rw-p  anonymous    256.0K         38");
	assert_has(r.out, "7f1000000000-7f1000003000  ---s  segment");
	assert_has(r.out, "000003/0/task_mm_4711.3.bin");
	assert_has(r.out, "segment 7: key 0x0000002a");
	assert_has(r.out, "process           files");
	done(&r);
	r = ICP("show", "--dir", j.dir, "--version", "1");
	expect(&r, 0, NULL);
	assert_has(r.out, "version 1: full");
	done(&r);
	r = ICP("show", "--dir", j.dir, "--pid", "4712");
	expect(&r, 1, "version 3 has no process 4712");
	done(&r);
	job_remove(&j);
}

static void test_show_json(void **state)
{
	json_t *all, *p, *vma, *run;
	struct job j;
	struct out r;

	job_make(&j, ICP_CODEC_ZSTD);
	r = ICP("show", "--dir", j.dir, "--version", "2", "--vmas", "--files", "--control",
		"--json");
	expect(&r, 0, NULL);
	all = parse(&r);
	assert_int_equal(number(all, "version"), 2);
	assert_int_equal(json_array_size(json_object_get(all, "files")), 3);
	p = json_array_get(json_object_get(all, "processes"), 0);
	assert_int_equal(number(p, "pages"), 38);
	assert_int_equal(number(p, "zero_pages"), 2);
	vma = json_array_get(json_object_get(p, "vmas"), 1);
	assert_int_equal(number(vma, "pages"), 3); /* the segment's, from its second page on */
	/* 0-2 of version 1, 3-4 of version 2, 5 zero, 6, 8-39 of version 1, 40 zero */
	assert_int_equal(json_array_size(json_object_get(p, "control")), 6);
	run = json_array_get(json_object_get(p, "control"), 1);
	assert_string_equal(json_string_value(json_object_get(run, "start")), "0x7f0000003000");
	assert_int_equal(number(run, "pages"), 2);
	assert_int_equal(number(run, "version"), 2);
	run = json_array_get(json_object_get(p, "control"), 4);
	assert_int_equal(number(run, "pages"), 32);
	assert_int_equal(number(run, "version"), 1);
	json_decref(all);
	done(&r);
	job_remove(&j);
}

/* What show says about @address is where the bytes are. */
static void look_up(struct job *j, uint64_t address, uint32_t id, const char *how,
		    json_int_t version)
{
	uint8_t want[PAGE], *got = malloc(256 << 10), stored[256 << 10];
	char text[32], path[256];
	json_t *all, *found, *at;
	struct out r;
	size_t size;
	int fd;

	fill(want, id);
	snprintf(text, sizeof(text), "%llx", (unsigned long long)address);
	r = ICP("show", "--dir", j->dir, "--control", text, "--lookup", how, "--json");
	expect(&r, 0, NULL);
	all = parse(&r);
	found = json_array_get(json_object_get(all, "found"), 0);
	assert_int_equal(number(found, "version"), version);
	at = json_object_get(found, "at");
	snprintf(path, sizeof(path), "%s/%s", j->dir,
		 json_string_value(json_object_get(at, "file")));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	size = (size_t)number(at, "size");
	assert_true(fd >= 0 && got && size <= sizeof(stored));
	must(io_pread_full(fd, stored, size, number(at, "offset")));
	if (!strcmp(json_string_value(json_object_get(at, "codec")), "zstd")) {
		assert_false(ZSTD_isError(ZSTD_decompress(got, 256 << 10, stored, size)));
		assert_memory_equal(got + number(at, "inside"), want, PAGE);
	} else {
		assert_memory_equal(stored, want, PAGE);
	}
	close(fd);
	free(got);
	json_decref(all);
	done(&r);
}

static void test_show_address(void **state)
{
	static const enum icp_codec codecs[] = {ICP_CODEC_NONE, ICP_CODEC_ZSTD};
	static const char *const how[] = {"direct", "rbtree"};
	struct job j;
	struct out r;

	for (int i = 0; i < 2; i++) {
		job_make(&j, codecs[i]);
		for (int k = 0; k < 2; k++) {
			look_up(&j, BASE + 10 * PAGE + 123, 110, how[k], 1);
			look_up(&j, BASE + 3 * PAGE, 300, how[k], 3);
			look_up(&j, BASE + 4 * PAGE, 201, how[k], 2);
			look_up(&j, SHM_BASE + PAGE, 300, how[k],
				3); /* page 2 of the segment */
			look_up(&j, SHM_BASE, 121, how[k], 1);
		}
		job_close(&j);
		nftw(j.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	}
	job_make(&j, ICP_CODEC_NONE);
	r = ICP("show", "--dir", j.dir, "--control=0x7f0000005000");
	expect(&r, 0, NULL);
	assert_string_equal(r.out, "process 4711: zero page  ([heap])\n");
	done(&r);
	r = ICP("show", "--dir", j.dir, "--control", "7f0000007000");
	expect(&r, 0, NULL);
	assert_string_equal(r.out, "process 4711: not saved: never touched  ([heap])\n");
	done(&r);
	r = ICP("show", "--dir", j.dir, "--control", "1000");
	expect(&r, 1, "version 3 has no memory at 0x1000");
	done(&r);
	job_remove(&j);
}

/* ---- verify ---- */

static void flip(const char *dir, const char *file, off_t at)
{
	char path[256];
	uint8_t byte;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	must(io_pread_full(fd, &byte, 1, at));
	byte ^= 0x10;
	must(io_pwrite_full(fd, &byte, 1, at));
	close(fd);
}

static void test_verify(void **state)
{
	json_t *all, *problem;
	struct job j;
	struct out r;

	job_make(&j, ICP_CODEC_NONE);
	r = ICP("verify", "--dir", j.dir, "--version", "3");
	expect(&r, 0, NULL);
	assert_has(r.out, "version 3: 44 pages, "); /* 38 and 2 zero, and 4 of the segment */
	assert_has(r.out, ", sound\n");
	done(&r);
	r = ICP("verify", "--dir", j.dir);
	expect(&r, 0, NULL);
	assert_has(r.out, "3 versions: ");
	done(&r);
	flip(j.dir, "000002/0/task_mm_4711.2.bin", 2 * PAGE + 17); /* slot 1: page 4 */
	r = ICP("verify", "--dir", j.dir, "--version", "3");
	expect(&r, 1, "damage was found");
	assert_has(r.out, "version 3, process 4711, page 0x7f0000004000, "
			  "000002/0/task_mm_4711.2.bin: slot 1: ");
	done(&r);
	r = ICP("verify", "--dir", j.dir, "--version", "1");
	expect(&r, 0, NULL);
	done(&r);
	r = ICP("verify", "--dir", j.dir, "--json");
	expect(&r, 1, "damage was found");
	all = parse(&r);
	assert_true(json_is_false(json_object_get(all, "sound")));
	problem = element(json_object_get(all, "problems"), "page", "0x7f0000004000");
	assert_non_null(problem);
	assert_int_equal(number(problem, "pid"), PID);
	json_decref(all);
	done(&r);
	r = ICP("list", "--dir", j.dir, "--verify");
	expect(&r, 1, "2 versions are damaged; version 2: ");
	assert_has(r.out, "yes");
	assert_has(r.out, "NO");
	done(&r);
	job_remove(&j);
}

/* ---- diff ---- */

static void test_diff(void **state)
{
	json_t *all, *p, *vma, *run;
	struct job j;
	struct out r;

	job_make(&j, ICP_CODEC_NONE);
	r = ICP("diff", "--dir", j.dir, "--from", "1", "--to", "2", "--pages", "--json");
	expect(&r, 0, NULL);
	all = parse(&r);
	p = json_array_get(json_object_get(all, "processes"), 0);
	assert_int_equal(number(p, "changed"), 2);
	assert_int_equal(number(p, "added"), 1);
	assert_int_equal(number(p, "gone"), 1);
	assert_int_equal(json_array_size(json_object_get(p, "vmas")), 1);
	vma = json_array_get(json_object_get(p, "vmas"), 0);
	assert_string_equal(json_string_value(json_object_get(vma, "name")), "[heap]");
	assert_int_equal(number(vma, "gone"), 1);
	assert_int_equal(json_array_size(json_object_get(p, "runs")), 3);
	run = element(json_object_get(p, "runs"), "what", "gone");
	assert_string_equal(json_string_value(json_object_get(run, "start")), "0x7f0000007000");
	p = json_array_get(json_object_get(all, "segments"), 0);
	assert_int_equal(number(p, "changed"), 0);
	json_decref(all);
	done(&r);
	r = ICP("diff", "--dir", j.dir, "--from", "2", "--to", "3", "--pages");
	expect(&r, 0, NULL);
	assert_has(r.out, "1 pages changed, 0 added, 0 gone");
	assert_has(r.out, "7f0000003000-7f0000004000          1  changed");
	assert_has(r.out, "segment 7 (key 0x0000002a): 1 pages changed");
	done(&r);
	r = ICP("diff", "--dir", j.dir, "--from", "3", "--to", "3");
	expect(&r, 0, NULL);
	assert_has(r.out, "nothing differs");
	done(&r);
	r = ICP("diff", "--dir", j.dir, "--from", "2", "--to", "3", "--pid", "1");
	expect(&r, 1, "neither version 2 nor 3 has a process 1");
	done(&r);
	job_remove(&j);
}

/* The data of this very program, as a version. */
static void commit_self(struct job *j, const char *exe, bool spoil_id)
{
	_cleanup_maps_ struct maps maps = {0};
	_cleanup_datasyms_ struct datasyms *syms = NULL;
	_cleanup_target_ struct target *self = NULL;
	Icp__Vma vma[32], *vmas[32];
	int fd = open(exe, O_RDONLY | O_CLOEXEC);
	/* a sanitizer would object to reading what lies between variables */
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	struct txn *t = begin(j);
	struct page_writer *w;
	size_t n = 0;

	pid_t twin = fork(); /* mapped like us; we can't be a target of ours */

	assert_true(twin >= 0);
	if (!twin) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	must(target_open(twin, &self));
	must(maps_read(self, &maps));
	kill(twin, SIGKILL);
	waitpid(twin, NULL, 0);
	must(datasyms_read_fd(fd, &syms));
	close(fd);
	assert_true(syms->build_id_len > 0);
	if (spoil_id)
		syms->build_id[0] ^= 1;
	must(txn_pages(t, PID, &w));
	for (size_t i = 0; i < maps.n && n < 32; i++) {
		const struct vma *v = &maps.data[i];
		bool ours = !strcmp(v->name, exe);

		/* the file, and .bss behind it */
		if (!ours && !(n && v->kind == VMA_ANON && v->start == vma[n - 1].end))
			continue;
		icp__vma__init(&vma[n]);
		vma[n].start = v->start;
		vma[n].end = v->end;
		vma[n].offset = v->offset;
		vma[n].prot = v->prot;
		vma[n].kind = v->kind + 1;
		vma[n].path = (char *)(ours ? v->name : "");
		if (ours)
			vma[n].build_id =
				(ProtobufCBinaryData){syms->build_id_len, syms->build_id};
		vmas[n] = &vma[n];
		n++;
		for (uint64_t at = v->start; v->prot & PROT_WRITE && at < v->end; at += PAGE) {
			static uint8_t copy[PAGE] __attribute__((aligned(PAGE)));
			struct page_src src = {at / PAGE, copy, NULL};

			/* one page of the table was never written in version 1: a hole there */
			if (!j->parent && at == ((uintptr_t)verbs_table + PAGE) / PAGE * PAGE)
				continue;
			must(io_pread_full(mem, copy, PAGE, (off_t)at));
			must(page_writer_put(w, &src, 1, j->own));
		}
	}
	close(mem);
	must(txn_pages_end(t, w, false));
	commit(j, t, vmas, n);
}

static void test_diff_variables(void **state)
{
	json_t *all, *p, *v;
	char exe[4096];
	struct job j;
	struct out r;

	assert_true(realpath("/proc/self/exe", exe));
	job_open(&j, ICP_CODEC_NONE);
	commit_self(&j, exe, false);
	verbs_counter++;
	verbs_table[PAGE] = verbs_table[PAGE + 7] = 9;
	commit_self(&j, exe, false);
	commit_self(&j, exe, true);
	job_close(&j);
	r = ICP("diff", "--dir", j.dir, "--from", "1", "--to", "2", "--json");
	expect(&r, 0, NULL);
	all = parse(&r);
	p = json_array_get(json_object_get(all, "processes"), 0);
	v = element(json_object_get(p, "variables"), "name", "verbs_counter");
	assert_non_null(v);
	assert_int_equal(number(v, "differ"), 1);
	assert_int_equal(number(v, "size"), sizeof(verbs_counter));
	assert_string_equal(json_string_value(json_object_get(v, "file")), exe);
	v = element(json_object_get(p, "variables"), "name", "verbs_table");
	assert_non_null(v);
	assert_int_equal(number(v, "differ"), 2);
	assert_int_equal(number(v, "first"), PAGE);
	assert_null(element(json_object_get(p, "variables"), "name", "verbs_still"));
	for (size_t i = 0, n = 0; i < json_array_size(json_object_get(p, "variables")); i++) {
		v = json_array_get(json_object_get(p, "variables"), i);
		n += !strcmp(json_string_value(json_object_get(v, "name")), "verbs_table");
		assert_true(n <= 1); /* segments may share a page of the file */
	}
	assert_int_equal(verbs_still, 17);
	json_decref(all);
	done(&r);
	r = ICP("diff", "--dir", j.dir, "--from", "1", "--to", "3");
	expect(&r, 0, NULL);
	assert_has(r.out, "the file is another one now (its build id differs)");
	assert_null(strstr(r.out, "verbs_counter"));
	done(&r);
	job_remove(&j);
}

/* ---- prune ---- */

static void test_prune(void **state)
{
	struct job j;
	struct out r;
	json_t *all;

	job_make(&j, ICP_CODEC_NONE);
	r = ICP("prune", "--dir", j.dir, "--drop", "1..3");
	expect(&r, 1, "would drop every version");
	done(&r);
	r = ICP("prune", "--dir", j.dir, "--drop", "2");
	expect(&r, 0, NULL);
	assert_has(r.out, "dropped version 2\n1 dropped, 2 left, ");
	done(&r);
	r = ICP("show", "--dir", j.dir, "--version", "2");
	expect(&r, 1, "version 2 is dropped");
	done(&r);
	look_up(&j, BASE + 4 * PAGE, 201, "direct", 2); /* version 3 needs it still */
	look_up(&j, BASE + 10 * PAGE, 110, "direct", 1);
	r = ICP("prune", "--dir", j.dir, "--keep-last", "1", "--json");
	expect(&r, 0, NULL);
	all = parse(&r);
	assert_int_equal(json_array_size(json_object_get(all, "dropped")), 1);
	assert_int_equal(number(all, "versions"), 1);
	json_decref(all);
	done(&r);
	look_up(&j, BASE + 10 * PAGE, 110, "rbtree", 1);
	look_up(&j, BASE + 4 * PAGE, 201, "rbtree", 2);
	r = ICP("verify", "--dir", j.dir);
	expect(&r, 0, NULL);
	assert_has(r.out, "1 version: ");
	done(&r);
	must(repo_open(j.dir, REPO_WRITE, &j.repo));
	r = ICP("prune", "--dir", j.dir, "--keep-last", "1");
	expect(&r, 1, "in use by another icp-bpf");
	done(&r);
	job_remove(&j);
}

/* ---- what is refused ---- */

static void test_usage(void **state)
{
	static const char *const wrong[][8] = {
		{"list"},
		{"list", "--dir"},
		{"list", "--dir", "/x", "more"},
		{"list", "--nonsense"},
		{"show", "--dir", "/x", "--version", "0"},
		{"show", "--dir", "/x", "--version", "-1"},
		{"show", "--dir", "/x", "--control", "xyz"},
		{"show", "--dir", "/x", "--control", "11112222333344445"},
		{"show", "--dir", "/x", "--lookup", "hash"},
		{"show", "--dir", "/x", "--pid", "me"},
		{"verify"},
		{"verify", "--dir", "/x", "--version", "4294967295"},
		{"diff", "--dir", "/x"},
		{"diff", "--dir", "/x", "--from", "1"},
		{"diff", "--dir", "/x", "--from", "a", "--to", "2"},
		{"prune", "--dir", "/x"},
		{"prune", "--dir", "/x", "--keep-last", "0"},
		{"prune", "--dir", "/x", "--drop", "3..2"},
		{"prune", "--dir", "/x", "--drop", "1..2x"},
		{"prune", "--dir", "/x", "--drop", ".."},
		{"prune", "--dir", "/x", "--drop", "1", "--keep-last", "2"},
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct out r = icp(wrong[i]);

		expect(&r, 2, "see icp-bpf help");
		assert_string_equal(r.out, "");
		done(&r);
	}
}

static const char *const verbs[] = {"list", "show", "verify", "diff", "prune"};

/* The command line of a verb for @dir. */
static struct out run_verb(const char *verb, const char *dir)
{
	if (!strcmp(verb, "diff"))
		return ICP(verb, "--dir", dir, "--from", "1", "--to", "3");
	if (!strcmp(verb, "prune"))
		return ICP(verb, "--dir", dir, "--keep-last", "2");
	if (!strcmp(verb, "show"))
		return ICP(verb, "--dir", dir, "--vmas", "--files", "--control");
	return ICP(verb, "--dir", dir);
}

static void test_refusals(void **state)
{
	char dir[SCRATCH_MAX];
	struct job j;
	struct out r;

	assert_non_null(mkdtemp(scratch(dir, "verbs")));
	for (size_t i = 0; i < 5; i++) {
		r = run_verb(verbs[i], "/tmp/there/is/none");
		expect(&r, 1, "/tmp/there/is/none");
		done(&r);
		r = run_verb(verbs[i], dir);
		expect(&r, 1, "is not a repository of icp-bpf");
		done(&r);
		r = ICP("help", verbs[i]);
		expect(&r, 0, NULL);
		assert_has(r.out, "example: icp-bpf ");
		assert_has(r.out, "--json");
		done(&r);
	}
	assert_int_equal(rmdir(dir), 0); /* and nothing was put into it */
	job_open(&j, ICP_CODEC_NONE);
	job_close(&j);
	r = ICP("list", "--dir", j.dir);
	expect(&r, 0, NULL);
	assert_string_equal(r.out, "no versions\n");
	done(&r);
	r = ICP("show", "--dir", j.dir);
	expect(&r, 1, "there is no version in ");
	done(&r);
	r = ICP("diff", "--dir", j.dir, "--from", "1", "--to", "2");
	expect(&r, 1, "there is no version 1");
	done(&r);
	r = ICP("verify", "--dir", j.dir, "--version", "5");
	expect(&r, 1, "there is no version 5");
	done(&r);
	job_remove(&j);
}

/* ---- damage ---- */

static char damaged_files[64][128];
static size_t n_damaged_files;

static int collect(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	if (flag == FTW_F && n_damaged_files < 64 && strcmp(path + ftw->base, "lock") != 0)
		snprintf(damaged_files[n_damaged_files++], 128, "%s", path);
	return 0;
}

/* Damage number @how to @data; false when there is no such one. */
static bool damage(const char *path, const char *data, size_t size, int how)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	char byte;

	assert_true(fd >= 0);
	must(io_write_full(fd, data, how == 0 ? 0 : how == 1 ? size / 2 : size));
	if (how >= 2 && size) {
		off_t at = (off_t)((size_t)(how - 2) * size / 6 + (size_t)how % 7);

		at = at < (off_t)size ? at : (off_t)size - 1;
		byte = (char)(data[at] ^ (1 << how % 8));
		must(io_pwrite_full(fd, &byte, 1, at));
	}
	close(fd);
	return how < 8;
}

static void restore(const char *path, const char *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	must(io_write_full(fd, data, size));
	close(fd);
}

/* Exit status 0 or 1, and with 1 a line that says why; verify must have found it. */
static void try_verbs(const char *dir, const char *file, int how)
{
	for (size_t i = 0; i < 4; i++) { /* not prune, which changes the repository */
		struct out r = run_verb(verbs[i], dir);
		int status = WIFEXITED(r.status) ? WEXITSTATUS(r.status) : -1;

		if (status < 0 || status > 1 || lines(r.err) != (size_t)status ||
		    (!status && !strcmp(verbs[i], "verify")))
			fail_msg("%s, damage %d of %s: status %#x\n%s", verbs[i], how, file,
				 r.status, r.err);
		done(&r);
	}
}

static void test_damage(void **state)
{
	struct job j;

	job_make(&j, ICP_CODEC_ZSTD);
	n_damaged_files = 0;
	assert_int_equal(nftw(j.dir, collect, 16, FTW_PHYS), 0);
	assert_true(n_damaged_files > 15);
	for (size_t i = 0; i < n_damaged_files; i++) {
		const char *path = damaged_files[i];
		_cleanup_free_ char *data = NULL;
		size_t size;

		must(io_read_file(AT_FDCWD, path, &data, &size));
		for (int how = 0; damage(path, data, size, how); how++)
			try_verbs(j.dir, path, how);
		assert_int_equal(unlink(path), 0);
		if (!strstr(path, "decision")) /* without it the version never was */
			try_verbs(j.dir, path, -1);
		restore(path, data, size);
	}
	job_remove(&j);
}

/* prune on a damaged repository: says so or does it, and what it leaves is whole. */
static void test_damage_prune(void **state)
{
	static const char *const files[] = {"repository", "000001/decision",
					    "000002/0/manifest.pb", "000001/0/ctl_4711.1.bin",
					    "000001/0/task_mm_4711.1.bin"};

	for (size_t i = 0; i < 5; i++) {
		struct job j;
		struct out r;

		job_make(&j, ICP_CODEC_NONE);
		flip(j.dir, files[i], 40);
		r = run_verb("prune", j.dir);
		if (!WIFEXITED(r.status) || WEXITSTATUS(r.status) > 1 ||
		    lines(r.err) != (size_t)WEXITSTATUS(r.status))
			fail_msg("%s: %#x %s", files[i], r.status, r.err);
		done(&r);
		job_remove(&j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list),	       cmocka_unit_test(test_show),
		cmocka_unit_test(test_show_json),      cmocka_unit_test(test_show_address),
		cmocka_unit_test(test_verify),	       cmocka_unit_test(test_diff),
		cmocka_unit_test(test_diff_variables), cmocka_unit_test(test_prune),
		cmocka_unit_test(test_usage),	       cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_damage),	       cmocka_unit_test(test_damage_prune),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
