/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where files go. The local directory is one back-end, an object store may be the next: so
 * there is no rename, no append, no mapping, no hard link here, and an object that was finished
 * is never changed, only removed.
 *
 * Names are relative, of [A-Za-z0-9._-] parts joined by '/'. Answers without a message:
 * -ENOENT, -EEXIST, -EBUSY (lock).
 */
#ifndef ICP_IMAGE_STORE_H
#define ICP_IMAGE_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/vec.h"

struct store;

/* An object being written, and one being read: back-ends put their own fields behind. */
struct store_put {
	struct store *store;
};
struct store_obj {
	struct store *store;
	uint64_t size; /* bytes, at the time it was opened */
};

struct store_item {
	char name[64]; /* last part only */
	bool prefix;   /* has others below it: a directory */
};
struct store_list {
	struct store_item *data;
	size_t n, cap;
};

struct store_ops {
	const char *name;
	int (*put_open)(struct store *s, const char *name, struct store_put **out);
	int (*put_write)(struct store_put *p, const struct iovec *iov, int n);
	int (*put_finish)(struct store_put *p);
	void (*put_cancel)(struct store_put *p);
	int (*create)(struct store *s, const char *name, const void *data, size_t len);
	int (*open)(struct store *s, const char *name, struct store_obj **out);
	int (*read)(struct store_obj *o, const struct iovec *iov, int n, uint64_t at);
	void (*obj_close)(struct store_obj *o);
	int (*list)(struct store *s, const char *prefix, struct store_list *out);
	int (*remove)(struct store *s, const char *name);
	int (*make_prefix)(struct store *s, const char *name);
	int (*remove_prefix)(struct store *s, const char *name);
	int (*sync)(struct store *s, const char *prefix);
	int (*lock)(struct store *s, const char *name);
	void (*close)(struct store *s);
};

struct store {
	const struct store_ops *ops;
};

/* The directory @path, mode 0700; with @create it is made when missing (its parent must exist).
 */
int store_dir_open(const char *path, bool create, struct store **out) _must_use_;

/*
 * For tests: wrap @inner (owned from now on) so that the @nth operation that changes something
 * (from 1) fails with @err, or with
 * @err 0 the process ends there by _exit(111), a write being half done. *@count, if not NULL,
 * counts such operations.
 * @sticky: the operations after the nth fail likewise.
 */
struct store_fault {
	uint64_t nth;
	int err; /* positive errno, or 0 for _exit */
	bool sticky;
	uint64_t *count;
};
int store_fault_wrap(struct store *inner, const struct store_fault *fault,
		     struct store **out) _must_use_;
/* ICP_FAULT="NTH:EIO|ENOSPC|kill[:sticky]": only the user who runs icp-bpf can set it, to harm
 * a checkpoint of their own. @inner is owned from now on, also on failure. */
int store_fault_env(struct store *inner, struct store **out) _must_use_;

static inline void store_close(struct store *s)
{
	if (s)
		s->ops->close(s);
}

/* Begin a new object; -EEXIST when there is one of that name. Mode 0600. */
static inline _must_use_ int store_put_open(struct store *s, const char *name,
					    struct store_put **out)
{
	return s->ops->put_open(s, name, out);
}
/* All of @iov, after what was written before. */
static inline _must_use_ int store_put_write(struct store_put *p, const struct iovec *iov,
					     int n)
{
	return p->store->ops->put_write(p, iov, n);
}
/* Content durable (the name: see store_sync). Ends @p, whatever the result. */
static inline _must_use_ int store_put_finish(struct store_put *p)
{
	return p->store->ops->put_finish(p);
}
/* Give up and end @p; the object is removed if possible. */
static inline void store_put_cancel(struct store_put *p)
{
	if (p)
		p->store->ops->put_cancel(p);
}
/* A small object appears at once with all its content, durable, or not at all; -EEXIST:
 * somebody was first. After another failure it may or may not be there. */
static inline _must_use_ int store_create(struct store *s, const char *name, const void *data,
					  size_t len)
{
	return s->ops->create(s, name, data, len);
}
static inline _must_use_ int store_open(struct store *s, const char *name,
					struct store_obj **out)
{
	return s->ops->open(s, name, out);
}
/* Exactly the bytes that @iov has room for, from @at on; -ENODATA when the object is shorter.
 */
static inline _must_use_ int store_readv(struct store_obj *o, const struct iovec *iov, int n,
					 uint64_t at)
{
	return o->store->ops->read(o, iov, n, at);
}
static inline _must_use_ int store_read(struct store_obj *o, void *data, size_t len,
					uint64_t at)
{
	struct iovec iov = {data, len};

	return o->store->ops->read(o, &iov, 1, at);
}
static inline void store_obj_close(struct store_obj *o)
{
	if (o)
		o->store->ops->obj_close(o);
}
/* What is directly below @prefix ("" for all), unsorted; -ENOENT when there is no such prefix.
 * Names that no repository would make (too long, strange characters) are listed with an empty
 * name. */
static inline _must_use_ int store_list(struct store *s, const char *prefix,
					struct store_list *out)
{
	return s->ops->list(s, prefix, out);
}
/* Removing what isn't there is fine. */
static inline _must_use_ int store_remove(struct store *s, const char *name)
{
	return s->ops->remove(s, name);
}
/* Back-ends with directories need them made (an existing one is fine) and removed (a missing
 * one is fine). */
static inline _must_use_ int store_make_prefix(struct store *s, const char *name)
{
	return s->ops->make_prefix(s, name);
}
static inline _must_use_ int store_remove_prefix(struct store *s, const char *name)
{
	return s->ops->remove_prefix(s, name);
}
/* The names directly below @prefix are durable after this. */
static inline _must_use_ int store_sync(struct store *s, const char *prefix)
{
	return s->ops->sync(s, prefix);
}
/* Exclude others until the store is closed or the process ends, however; -EBUSY when someone
 * has it. */
static inline _must_use_ int store_lock(struct store *s, const char *name)
{
	return s->ops->lock(s, name);
}

static inline void cleanup_put(struct store_put **p)
{
	store_put_cancel(*p);
}
static inline void cleanup_obj(struct store_obj **o)
{
	store_obj_close(*o);
}
static inline void cleanup_store(struct store **s)
{
	store_close(*s);
}
static inline void cleanup_list(struct store_list *l)
{
	vec_free(l);
}
#define _cleanup_put_ _cleanup_(cleanup_put)
#define _cleanup_obj_ _cleanup_(cleanup_obj)
#define _cleanup_store_ _cleanup_(cleanup_store)
#define _cleanup_list_ _cleanup_(cleanup_list)

/* The whole object into a new buffer the caller frees (a NUL behind it); -EFBIG above @max
 * bytes. */
int store_load(struct store *s, const char *name, size_t max, void **data,
	       size_t *len) _must_use_;

#endif
