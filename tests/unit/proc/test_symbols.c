// SPDX-License-Identifier: GPL-2.0
/* Names of this program's own functions (it is position-independent), of libraries, of the
 * symbols_* targets, of hostile files. */
#include "proc/symbols.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "base/io.h"
#include "proc/elfsyms.h"
#include "lib/scratch.h"

#define PAGE ((size_t)sysconf(_SC_PAGESIZE))

/* Functions as assembler programmers leave them: inside each other, without a size, with
 * several names. */
__asm__(".pushsection .text.shapes, \"ax\", @progbits\n"
	".globl shape_outer\n .type shape_outer, @function\n"
	"shape_outer: .fill 16, 1, 0x90\n"
	".globl shape_inner\n .type shape_inner, @function\n"
	"shape_inner: .fill 16, 1, 0x90\n"
	".size shape_inner, 16\n"
	".fill 16, 1, 0x90\n"
	".size shape_outer, 48\n"
	".globl shape_gap\n shape_gap: .fill 16, 1, 0x90\n" /* a label, no function */
	".globl shape_nosize\n .type shape_nosize, @function\n"
	"shape_nosize: .fill 16, 1, 0x90\n"
	".globl __shape_alias\n .type __shape_alias, @function\n"
	".weak shape_alias\n .type shape_alias, @function\n"
	".globl shape_alias_long\n .type shape_alias_long, @function\n"
	".type a_local, @function\n"
	"a_local: __shape_alias: shape_alias: shape_alias_long: .fill 16, 1, 0x90\n"
	".size __shape_alias, 16\n .size shape_alias, 16\n .size a_local, 16\n"
	".globl shape_last\n .type shape_last, @function\n"
	"shape_last: .fill 16, 1, 0x90\n"
	".popsection\n");
extern const char shape_outer[], shape_inner[], shape_gap[], shape_nosize[], shape_alias[],
	shape_last[];

__attribute__((noinline)) static int a_static_function(int x)
{
	__asm__ volatile("" : "+r"(x));
	return x + 1;
}

/* Read here and not by maps_read(): this test is about symbols. Weak: the library's own comes
 * first once it is linked in. */
__attribute__((weak)) const struct vma *maps_find(const struct maps *maps, uint64_t addr)
{
	for (size_t i = 0; i < maps->n; i++)
		if (maps->data[i].start <= addr && addr < maps->data[i].end)
			return &maps->data[i];
	return NULL;
}

struct subject {
	struct target target;
	struct maps maps;
	pid_t child;
	uint64_t addr[2];
};

static void subject_reread(struct subject *s)
{
	char *line, *rest;

	free(s->maps.text);
	s->maps.n = 0;
	assert_int_equal(io_read_file(s->target.proc_fd, "maps", &s->maps.text, NULL), 0);
	for (line = s->maps.text; *line; line = rest) {
		struct vma *v = vec_push(&s->maps);
		int name = 0;

		rest = strchr(line, '\n');
		*rest++ = 0;
		assert_int_equal(sscanf(line, "%lx-%lx %*s %lx %x:%x %lu %n", &v->start,
					&v->end, &v->offset, &v->dev_major, &v->dev_minor,
					&v->inode, &name),
				 6);
		v->name = line + name;
		if (strstr(v->name, " (deleted)"))
			*strstr(line + name, " (deleted)") = 0;
	}
}

static void subject_open(struct subject *s, pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	s->target.pid = pid;
	s->target.proc_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(s->target.proc_fd >= 0);
	subject_reread(s);
}

static void subject_run(struct subject *s, const char *path)
{
	_cleanup_free_ char *said = NULL;
	_cleanup_file_ FILE *from = NULL;
	size_t len = 0;
	int out[2];

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	s->child = fork();
	assert_true(s->child >= 0);
	if (!s->child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(out[1], 1);
		execl(path, path, NULL);
		_exit(127);
	}
	close(out[1]);
	from = fdopen(out[0], "r");
	assert_non_null(from);
	assert_true(getline(&said, &len, from) > 0);
	assert_int_equal(sscanf(said, "%lx %lx", &s->addr[0], &s->addr[1]), 2);
	subject_open(s, s->child);
}

static void subject_end(struct subject *s)
{
	if (s->child > 0) {
		kill(s->child, SIGKILL);
		waitpid(s->child, NULL, 0);
	}
	if (s->target.proc_fd > 0)
		close(s->target.proc_fd);
	free(s->maps.data);
	free(s->maps.text);
}
#define _subject_ __attribute__((cleanup(subject_end))) struct subject

static const char *target_path(const char *name)
{
	static char path[PATH_MAX];
	char exe[PATH_MAX] = "";

	/* build/tests/unit/proc/test_symbols */
	assert_true(readlink("/proc/self/exe", exe, sizeof(exe) - 1) > 0);
	for (int i = 0; i < 3; i++)
		*strrchr(exe, '/') = 0;
	snprintf(path, sizeof(path), "%.3000s/targets/%s", exe, name);
	return path;
}

/* Heap: too large for a small stack, and ASan sees overruns. */
static struct symbols *new_symbols(void)
{
	struct symbols *s = NULL;

	assert_int_equal(symbols_new(&s), 0);
	return s;
}

static void expect(struct symbols *s, const struct subject *of, const void *ip,
		   const char *function, uint64_t offset)
{
	struct symbol_name name;

	symbols_lookup(s, &of->target, &of->maps, (uintptr_t)ip, &name);
	if (!function) {
		assert_int_equal(name.kind, SYMBOL_MODULE);
		assert_null(name.function);
		return;
	}
	assert_int_equal(name.kind, SYMBOL_FUNCTION);
	assert_string_equal(name.function, function);
	assert_int_equal(name.function_offset, offset);
}

static void names_own_functions(void **state)
{
	_cleanup_symbols_ struct symbols *s = new_symbols();
	struct symbols_stats stats;
	struct symbol_name name;
	_subject_ me = {};

	subject_open(&me, getpid());
	assert_int_equal(a_static_function(1), 2);
	for (int i = 0; i < 2; i++) { /* the second time from the cache */
		expect(s, &me, a_static_function, "a_static_function", 0);
		expect(s, &me, (const char *)a_static_function + 1, "a_static_function", 1);
		expect(s, &me, names_own_functions, "names_own_functions", 0);
		expect(s, &me, symbols_lookup, "symbols_lookup", 0);
	}
	symbols_stats(s, &stats);
	assert_int_equal(stats.misses, 4);
	assert_int_equal(stats.hits, 4);
	assert_int_equal(stats.files_read, 1);
	symbols_lookup(s, &me.target, &me.maps, (uintptr_t)a_static_function, &name);
	assert_string_equal(name.module, "test_symbols");
	assert_true(name.module_offset < 1 << 28); /* as linked, not as loaded */
}

static void understands_odd_functions(void **state)
{
	_cleanup_symbols_ struct symbols *s = new_symbols();
	_subject_ me = {};

	subject_open(&me, getpid());
	expect(s, &me, shape_outer + 15, "shape_outer", 15);
	expect(s, &me, shape_inner, "shape_inner", 0);
	expect(s, &me, shape_inner + 15, "shape_inner", 15);
	expect(s, &me, shape_inner + 16, "shape_outer", 32);
	expect(s, &me, shape_gap, NULL, 0);
	expect(s, &me, shape_nosize + 15, "shape_nosize", 15);
	expect(s, &me, shape_alias + 3, "shape_alias", 3);
	expect(s, &me, shape_last + 15, "shape_last", 15);
}

static void names_library_and_vdso_functions(void **state)
{
	_cleanup_symbols_ struct symbols *s = new_symbols();
	void *vdso = dlopen("linux-vdso.so.1", RTLD_NOW | RTLD_NOLOAD);
	const char *clock = vdso ? dlsym(vdso, "__vdso_clock_gettime") : NULL;
	struct symbol_name name;
	_subject_ me = {};
	char text[64];

	subject_open(&me, getpid());
	expect(s, &me, (void *)getppid, "getppid", 0);
	expect(s, &me, dlsym(RTLD_NEXT, "getpid"), "getpid", 0); /* is __getpid, too */
	symbols_lookup(s, &me.target, &me.maps, (uintptr_t)getppid + 2, &name);
	assert_string_equal(name.module, "libc.so.6");
	assert_true(symbol_format(&name, (uintptr_t)getppid, text, sizeof(text)) > 0);
	assert_string_equal(text, "getppid");
	assert_non_null(clock);
	expect(s, &me, clock, "clock_gettime", 0);
	symbols_lookup(s, &me.target, &me.maps, (uintptr_t)clock, &name);
	assert_string_equal(name.module, "[vdso]");
	dlclose(vdso);
}

static void names_functions_of_a_static_program(void **state)
{
	_cleanup_symbols_ struct symbols *s = new_symbols();
	struct symbol_name name;
	_subject_ other = {};

	subject_run(&other, target_path("symbols_static"));
	expect(s, &other, (void *)other.addr[0], "known_function", 0);
	expect(s, &other, (void *)(other.addr[1] + 1), "getppid", 1);
	symbols_lookup(s, &other.target, &other.maps, other.addr[0], &name);
	assert_int_equal(name.module_offset, other.addr[0]); /* linked where it runs */
	assert_string_equal(name.module, "symbols_static");
}

static void says_module_and_offset_of_a_stripped_program(void **state)
{
	_cleanup_symbols_ struct symbols *s = new_symbols();
	char text[128], expected[128];
	struct symbol_name name;
	const struct vma *first;
	_subject_ other = {};

	subject_run(&other, target_path("symbols_stripped"));
	symbols_lookup(s, &other.target, &other.maps, other.addr[0], &name);
	assert_int_equal(name.kind, SYMBOL_MODULE);
	first = &other.maps.data[0]; /* a PIE's first segment is linked to 0 */
	assert_non_null(strstr(first->name, "symbols_stripped"));
	assert_int_equal(name.module_offset, other.addr[0] - first->start);
	snprintf(expected, sizeof(expected), "symbols_stripped+%#lx",
		 other.addr[0] - first->start);
	symbol_format(&name, other.addr[0], text, sizeof(text));
	assert_string_equal(text, expected);
	expect(s, &other, (void *)other.addr[1], "getppid", 0); /* of libc */
}

static void says_what_has_no_file(void **state)
{
	_cleanup_symbols_ struct symbols *s = new_symbols();
	char *jit = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct symbol_name name;
	_subject_ me = {};
	char text[64];

	assert_true(jit != MAP_FAILED);
	subject_open(&me, getpid());
	symbols_lookup(s, &me.target, &me.maps, (uintptr_t)jit + 16, &name);
	assert_int_equal(name.kind, SYMBOL_ANON);
	assert_string_equal(name.module, "[anon]");
	assert_true(name.module_offset >= 16 && name.module_offset % PAGE == 16);
	munmap(jit, PAGE);
	symbols_lookup(s, &me.target, &me.maps, 16, &name);
	assert_int_equal(name.kind, SYMBOL_UNKNOWN);
	symbol_format(&name, 16, text, sizeof(text));
	assert_string_equal(text, "0x10");
}

/* A copy of the static target's file in memory; the caller frees. */
static char *program_image(size_t *len)
{
	char *data = NULL;

	assert_int_equal(io_read_file(AT_FDCWD, target_path("symbols_static"), &data, len), 0);
	return data;
}

static char *map_file(const char *path, const char *data, size_t len)
{
	_cleanup_fd_ int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char *map;

	assert_true(fd >= 0);
	assert_int_equal(io_write_full(fd, data, len), 0);
	map = mmap(NULL, len, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	assert_true(map != MAP_FAILED);
	return map;
}

/* Another file at the same address, or under the same name: the answer is never the old one. */
static void follows_what_is_mapped(void **state)
{
	_cleanup_symbols_ struct symbols *s = new_symbols();
	_cleanup_free_ char *image = NULL;
	char path[SCRATCH_MAX];
	_cleanup_fd_ int fd = mkstemp(scratch(path, "symbols"));
	_subject_ other = {}, me = {};
	char *map, *again;
	uint64_t at;
	size_t len;

	assert_true(fd >= 0);
	image = program_image(&len);
	subject_run(&other, target_path("symbols_static"));
	at = other.addr[0] - 0x400000; /* the linker's base: offset in the file */
	map = map_file(path, image, len);
	subject_open(&me, getpid());
	expect(s, &me, map + at, "known_function", 0);
	unlink(path); /* still mapped, and found without its name, when that is permitted */
	subject_reread(&me);
	expect(s, &me, map + at, "known_function", 0);
	symbols_forget(s, getpid());
	expect(s, &me, map + at + 1, geteuid() ? NULL : "known_function", 1);
	/* now no ELF file, at the same place under the same name */
	memset(image, 'x', 64);
	again = map_file(path, image, len);
	assert_true(mremap(again, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, map) == map);
	unlink(path);
	subject_reread(&me);
	expect(s, &me, map + at, NULL, 0);
	munmap(map, len);
}

/* More files than tables are kept for: what is cached of a table that went is not used. */
static void forgets_the_least_recently_used_file(void **state)
{
	_cleanup_symbols_ struct symbols *s = new_symbols();
	struct symbols_stats stats;
	_subject_ me = {};
	char *maps[300];

	for (int i = 0; i < 300; i++) {
		_cleanup_fd_ int fd = memfd_create("no-elf", MFD_CLOEXEC);

		assert_true(fd >= 0 && !ftruncate(fd, (off_t)PAGE));
		maps[i] = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		assert_true(maps[i] != MAP_FAILED);
	}
	subject_open(&me, getpid());
	expect(s, &me, a_static_function, "a_static_function", 0);
	for (int i = 0; i < 300; i++)
		expect(s, &me, maps[i] + 1, NULL, 0);
	expect(s, &me, a_static_function, "a_static_function", 0);
	symbols_stats(s, &stats);
	assert_int_equal(stats.files_read, 302);
	assert_int_equal(stats.hits, 0);
	for (int i = 0; i < 300; i++)
		munmap(maps[i], PAGE);
}

static void survives_truncated_files(void **state)
{
	_cleanup_symbols_ struct symbols *s = new_symbols();
	_cleanup_free_ char *image = NULL;
	char path[SCRATCH_MAX];
	_cleanup_fd_ int fd = mkstemp(scratch(path, "symbols"));
	_subject_ me = {};
	size_t len;
	char *map;

	assert_true(fd >= 0);
	image = program_image(&len);
	map = map_file(path, image, len);
	assert_int_equal(truncate(path, 4096), 0); /* of the mapped file: the tables are gone */
	subject_open(&me, getpid());
	expect(s, &me, map + 0x1000, NULL, 0);
	unlink(path);
	munmap(map, len);
	for (size_t cut = 0; cut < len; cut += cut < 256 ? 1 : len / 50) {
		_cleanup_elfsyms_ struct elfsyms *e = NULL;
		int err = elfsyms_read_mem(image, cut, &e);

		assert_true(err == -ENOEXEC || (!err && !elfsyms_count(e)));
	}
}

static void corrupt(char *image, size_t len, unsigned *seed)
{
	const Elf64_Ehdr *ehdr = (const void *)image;
	size_t sections = ehdr->e_shoff, n = 1 + (unsigned)rand_r(seed) % 8;

	while (n--) {
		static const unsigned char nasty[] = {0, 1, 0x7f, 0x80, 0xff};
		size_t where = (unsigned)rand_r(seed) % 4, at;

		/* headers and section headers decide most; then anywhere */
		at = where == 0	 ? (unsigned)rand_r(seed) % 1024
		     : where < 3 ? sections + (unsigned)rand_r(seed) % (ehdr->e_shnum * 64u + 1)
				 : (unsigned)rand_r(seed) % len;
		if (at < len)
			image[at] = rand_r(seed) % 2 ? (char)rand_r(seed)
						     : (char)nasty[(unsigned)rand_r(seed) % 5];
		if (ehdr->e_shoff != sections)
			break;
	}
}

static void survives_corrupted_files(void **state)
{
	const char *given = getenv("SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0)
			      : (unsigned)time(NULL) ^ (unsigned)getpid();
	_cleanup_free_ char *image = NULL, *copy = NULL;
	_cleanup_fd_ int fd = memfd_create("elf", MFD_CLOEXEC);
	size_t len, read = 0;

	print_message("SEED=%u\n", seed);
	image = program_image(&len);
	copy = malloc(len);
	assert_true(copy && fd >= 0);
	for (int i = 0; i < 300; i++) {
		_cleanup_elfsyms_ struct elfsyms *e = NULL, *from_fd = NULL;
		uint64_t offset = 0, vaddr;
		int err;

		memcpy(copy, image, len);
		corrupt(copy, len, &seed);
		err = elfsyms_read_mem(copy, len, &e);
		assert_true(!err || err == -ENOEXEC || err == -ENOMEM);
		assert_int_equal(io_pwrite_full(fd, copy, len, 0), 0);
		assert_int_equal(elfsyms_read_fd(fd, &from_fd), err);
		if (err)
			continue;
		read++;
		assert_int_equal(elfsyms_count(e), elfsyms_count(from_fd));
		for (uint64_t at = 0; at < len + PAGE; at += 999) {
			const char *name = NULL;

			if (elfsyms_vaddr(e, at, &vaddr))
				name = elfsyms_find(e, vaddr, &offset);
			if (name)
				assert_true(strlen(name) <= 4096);
		}
	}
	assert_true(read > 0); /* or the corruption is too coarse to reach the tables */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_own_functions),
		cmocka_unit_test(understands_odd_functions),
		cmocka_unit_test(names_library_and_vdso_functions),
		cmocka_unit_test(names_functions_of_a_static_program),
		cmocka_unit_test(says_module_and_offset_of_a_stripped_program),
		cmocka_unit_test(says_what_has_no_file),
		cmocka_unit_test(follows_what_is_mapped),
		cmocka_unit_test(forgets_the_least_recently_used_file),
		cmocka_unit_test(survives_truncated_files),
		cmocka_unit_test(survives_corrupted_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
