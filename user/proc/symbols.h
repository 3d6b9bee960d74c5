/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Function names of instruction addresses of running processes:
 *     ip -> VMA -> offset in its file -> vaddr (through PT_LOAD, so PIE and fixed programs
 * alike) -> function
 *
 * A table per ELF file, and a bounded cache by (pid, ip) that makes a repeated lookup O(1). C++
 * and Rust names stay mangled (demangling needs libstdc++). No separate debug files: a stripped
 * program has the names it exports.
 *
 * Files are opened through /proc/PID/map_files where permitted, which finds deleted files and
 * those of containers, else by name inside the target's root; one that is not the mapped file
 * (another inode) is not used. The former, and reading the vdso, takes the mmap_lock of the
 * target for reading, on the first lookup in a VMA only. Nothing else is done to the
 * target; its files and its memory are untrusted input.
 *
 * Not thread-safe: one struct symbols per thread.
 */
#ifndef ICP_PROC_SYMBOLS_H
#define ICP_PROC_SYMBOLS_H

#include <stddef.h>
#include <stdint.h>

#include "proc/maps.h"
#include "proc/target.h"

struct symbols;

enum symbol_kind {
	SYMBOL_UNKNOWN = 0, /* no VMA holds the address */
	SYMBOL_FUNCTION,
	SYMBOL_MODULE, /* a file or the vdso, but no symbol */
	SYMBOL_ANON,   /* no file: code made at run time, or a jump astray */
};

struct symbol_name {
	enum symbol_kind kind;
	const char *function;	  /* SYMBOL_FUNCTION only; valid until the next call with this
				     struct symbols */
	uint64_t function_offset; /* bytes into the function */
	/* The file's last path component, "[vdso]", "[heap]", or "[anon]"; printable ASCII,
	 * long ones are cut. */
	char module[64];
	/* The address as the ELF file has it (what addr2line and objdump take); no ELF: offset
	 * in the file; anonymous: in the VMA. */
	uint64_t module_offset;
};

int symbols_new(struct symbols **out) _must_use_;
void symbols_free(struct symbols *s);

static inline void cleanup_symbols(struct symbols **s)
{
	symbols_free(*s);
}
#define _cleanup_symbols_ _cleanup_(cleanup_symbols)

/* Always fills @out as well as it can (an unreadable or broken file: SYMBOL_MODULE). Of @t: pid
 * and proc_fd. */
void symbols_lookup(struct symbols *s, const struct target *t, const struct maps *maps,
		    uint64_t ip, struct symbol_name *out);

/*
 * Forget what is cached by address for @pid: on its exec or exit. Not needed for correctness
 * after other changes of the maps, as an entry is used only while the same part of the same
 * file lies there.
 */
void symbols_forget(struct symbols *s, pid_t pid);

/* "function", "module+0x1234", "[anon]+0x10", or "0x.." of @ip. As snprintf. */
int symbol_format(const struct symbol_name *name, uint64_t ip, char *buf, size_t len);

/* How often the cache answered, and how many files were read: for tests and statistics. */
struct symbols_stats {
	uint64_t hits, misses, files_read;
};
void symbols_stats(const struct symbols *s, struct symbols_stats *out);

#endif
