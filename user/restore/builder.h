/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who builds the job: a process beside icp-bpf, which is the parent of what it makes.
 *
 *     icp-bpf --- fork ---> builder --- clone, CLONE_PARENT ---> the job's first processes
 *
 *     icp-bpf --- new pid and mount namespace ---> init --- fork ---> builder --- the same
 *
 * The builder traces all of the job and dies with its parent, and whatever it traces with it.
 * When all is ready it says so; told to go on it leaves its parent's fate and session behind and
 * lets everybody go. So the death of icp-bpf at any moment leaves all of the job, or none.
 */
#ifndef ICP_RESTORE_BUILDER_H
#define ICP_RESTORE_BUILDER_H

#include "restore/internal.h"

/* Its ends of the pipes to icp-bpf. */
struct builder {
	int news, go;
	int keeper;   /* of System V objects */
	pid_t parent; /* also of the job's first processes */
};

/* In the builder, all are ready: tell, and wait for the word. After 0 nobody else can stop it. */
int builder_commit(struct restore *r) _must_use_;
/* In a stub. */
void builder_forget(struct restore *r);

/* The body of the builder: everything of a restart up to the release; 0 or a negative errno. */
int restore_all(struct restore *r) _must_use_;

/* ---- init.c ---- */
struct init_ends {
	int go;	    /* from icp-bpf */
	int pass;   /* the same to the builder */
	int status; /* what became of the processes, for icp-bpf */
};
/* What a child of init became, as waitpid() says. */
struct init_status {
	int32_t pid, status;
};
/* In the first process of a new pid namespace: start @build in another, and reap until nobody is left. */
void init_main(const struct init_ends *ends, void (*build)(void *arg), void *arg)
	__attribute__((noreturn));

#endif
