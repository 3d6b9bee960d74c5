/* SPDX-License-Identifier: GPL-2.0 */
/* Private to user/dump/. */
#ifndef ICP_DUMP_INTERNAL_H
#define ICP_DUMP_INTERNAL_H

#include <sys/stat.h>

#include "dump/dump.h"
#include "proc/sysvshm.h"
#include "state/state.h"

/* Where pages are read from: a process's memory, or a segment's file. */
struct page_source {
	pid_t pid;    /* process_vm_readv(), at the address */
	int mem_fd;   /* /proc/PID/mem for what that refuses (PROT_NONE...) */
	int file_fd;  /* >= 0: pread() at the offset instead */
	bool to_size; /* of a file: only up to its end, wherever that is by now */
	uint64_t file_size;
};

/* One page file and its control structure. */
struct stream {
	uint32_t id;
	struct ctl *ctl;
	struct page_writer *writer;
	bool compare_all; /* everything populated is copied, what is unchanged is found by hash */
	struct dirty
		todo; /* to be copied next; offsets for a segment, addresses for a process */
	struct dirty round; /* what was copied last */
	struct dirty
		put_off; /* written again as fast as it was copied: compared while frozen */
	struct dirty populated; /* pages with content of their own; the others have no entry */
	struct dirty last;	/* the last dirty set, taken while frozen */
	struct dirty
		compare; /* what may have changed without any tracker noticing: compared while frozen */
};

/* A copy of pages, made while frozen, that is stored after the thaw. */
struct staged {
	struct stream *stream;
	uint64_t page; /* number */
	uint64_t n;
	size_t offset; /* of its bytes in the staging memory */
};

struct dump_proc {
	struct dump_source src;
	struct stream stream;
	struct page_source source;
	struct maps maps; /* as of the last take */
	bool gone;	  /* ended while the job ran */
	/* to tell whether events explain everything since the last take */
	struct icp_counters seen;
	size_t batch_mark; /* faults in the batch from here on are younger than the last take */
	size_t change_mark;
	struct fault_addresses
		in_flight;    /* faults that may have been under way at the last take */
	struct dirty suspect; /* taken while somebody may have been about to write: compared */
	bool direct_io;	      /* has a file open with O_DIRECT */
	bool exact;	      /* events named every page written since */
	uint64_t
		state_locks; /* for writing, taken by the calls that were injected in the pause */
	struct state_process state;
};

struct dump_segment {
	int shmid;
	struct stream stream;
	struct page_source source;
	uint64_t size;
	struct sysvshm_segment info;	 /* as of the freeze */
	bool populated_known;		 /* stream.populated is, as of the last take */
	bool fresh;			 /* nothing of it was copied yet */
	struct dump_segment_times found; /* when this checkpoint saw it first */
};

/* What is in a deleted file. */
struct dump_content {
	size_t index; /* in state_contents() */
	uint32_t id;
	struct stream stream;
	struct page_source source;
	struct stat copied; /* before it was copied while the job ran */
	struct stat now;    /* of the freeze */
	bool trusted;	    /* writing it would change the times of `copied` */
};

struct dump {
	struct dump_config config;
	struct txn *txn;
	Icp__Manifest *manifest; /* of this version */
	Icp__Manifest *parent;	 /* or NULL */
	struct state_job *state;
	VEC(struct dump_proc *) procs;
	VEC(struct dump_segment *) segments;
	VEC(struct dump_content *) contents;
	size_t populated_mark; /* faults in the batch before it may have brought pages that stream.populated has */
	struct {
		uint8_t *data;
		size_t size, used;
		VEC(struct staged) list;
	} staging;
	struct dump_result result;
	bool frozen, precopied;
	uint64_t start_ns, frozen_ns;
	int64_t start_time; /* seconds since 1970 */
};

/* check.c */
/* While they run: state_check_job() of @pids and all that descend from them. */
int check_trees(struct state_job *job, const pid_list *pids, int cancel_fd) _must_use_;

/* dump.c */
/* -EINTR with a message when the caller wants no version any more. */
int cancelled(int cancel_fd) _must_use_;
int proc_taken(struct dump_proc *p, const struct dirty *set) _must_use_;

/* copy.c */
int source_open(struct page_source *s, const struct target *t) _must_use_;
void source_close(struct page_source *s);
/* Copy the runs of @runs (bytes) into @stream, with a second thread where it is worth it. Pages that are gone are skipped. */
int copy_runs(struct dump *d, const struct page_source *from, struct stream *stream,
	      const struct dirty *runs) _must_use_;
/* Frozen: copy them into the staging memory. */
int stage_runs(struct dump *d, const struct page_source *from, struct stream *stream,
	       const struct dirty *runs) _must_use_;
/* The same, but leave out what the control structure has already: memory is needed for the changes only. */
int stage_changed(struct dump *d, const struct page_source *from, struct stream *stream,
		  const struct dirty *runs) _must_use_;
/* After the thaw: store what was staged. */
int staging_store(struct dump *d) _must_use_;
/* Have memory ready for at least @pages pages, faulted in. */
int staging_prepare(struct dump *d, uint64_t pages) _must_use_;

/* populated.c */
/*
 * Pages of the private mappings of @p that have content of their own. Into @unsure, unless it is NULL: those that may have lost it
 * without the tracker noticing.
 */
int populated_private(const struct dump_proc *p, struct dirty *out,
		      struct dirty *unsure) _must_use_;
/* Data of one shared mapping that is saved with the process, as addresses. */
int populated_shared(const struct dump_proc *p, const struct vma *v,
		     struct dirty *out) _must_use_;
/* Both, of all mappings. */
int populated_of(const struct dump_proc *p, struct dirty *out, struct dirty *unsure) _must_use_;
/* Frozen: bring stream.populated and stream.compare up to date; the private mappings too if @all. */
int populated_again(struct dump_proc *p, bool all) _must_use_;
/* All of a segment that has content, going by what `info` says; as offsets. */
int populated_segment(const struct dump_segment *s, struct dirty *out) _must_use_;
/* The data of a file up to @size, as offsets. */
int populated_file(int fd, uint64_t size, struct dirty *out) _must_use_;
/* Is the content of this VMA part of the image? Segments are not: they have their own stream. */
bool vma_saved(const struct dump_proc *p, const struct vma *v);
/* Whether it counts as a whole, with what is its file's: compared each time. */
bool vma_by_file(const struct dump_proc *p, const struct vma *v);
/* Entries of the control structure outside @keep and @also go. */
int stream_remove_others(struct stream *s, const struct dirty *keep,
			 const struct dirty *also) _must_use_;

/* route.c: dirty sets to streams, and the segments of the job */
int route_dirty(struct dump *d, struct dump_proc *p, const struct dirty *set,
		bool last) _must_use_;
int segments_find(struct dump *d) _must_use_;
/* What the owner knows of it since the last version, or NULL. */
struct dump_segment_ctl *segment_ctl(struct dump *d, int shmid);
struct dump_segment_times segment_times(const struct sysvshm_segment *info);
/* Those that no process attaches, if the version shall have them. */
int segments_find_detached(struct dump *d) _must_use_;
int segments_known(struct dump *d) _must_use_;
/* Those that were attached since the last round: all of it is to be copied. */
int segments_new(struct dump *d) _must_use_;
/* What is populated, as far as it can be known while the job runs. */
int segments_populated(struct dump *d) _must_use_;
/* Frozen: what is populated, and what must be compared. */
int segments_settle(struct dump *d, bool all_exact) _must_use_;

/* contents.c: deleted files that the job has open */
int contents_begin(struct dump *d) _must_use_;	/* the first round: todo */
int contents_settle(struct dump *d) _must_use_; /* frozen: what must be compared */
int contents_finish(struct dump *d) _must_use_;
int contents_ctl(struct dump *d) _must_use_; /* after all page files */
int contents_describe(struct dump *d) _must_use_;
void contents_free(struct dump *d);

/* describe.c: the manifest */
int describe_job(struct dump *d) _must_use_;
int describe_begin(struct dump *d, struct dump_proc *p) _must_use_;
int describe_zombies(struct dump *d) _must_use_;
int describe_end(struct dump *d) _must_use_;
/* What @t was in the parent version: the same process, or the one that it was restarted from. */
const Icp__Process *parent_process(const struct dump *d, const struct target *t);
const Icp__Segment *parent_segment(const struct dump *d, int shmid);

/* direct.c */
bool proc_uses_direct_io(const struct dump_proc *p);

/* finish.c */
int finish_stream(struct dump *d, struct stream *s, const struct page_source *source,
		  bool killed) _must_use_;
int finish_gone(struct dump *d, struct stream *s) _must_use_;

/* stream.c */
/* @parent_id: the stream of the parent version that it goes on from, or 0. */
int stream_open(struct dump *d, struct stream *s, uint32_t id, uint32_t parent_id,
		struct ctl **owned) _must_use_;
void stream_close(struct dump *d, struct stream *s);

#endif
