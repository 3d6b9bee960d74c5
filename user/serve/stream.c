// SPDX-License-Identifier: GPL-2.0
#include "serve/stream.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define MESSAGES_MAX 32u
#define KEEP_NS 15000000000u
#define BLOCK 16384

struct message {
	unsigned refs;
	size_t len;
	char text[];
};

/* One connection. */
struct reader {
	struct streams *streams;
	struct MHD_Connection *connection;
	struct message *message; /* being sent */
	size_t at;
	uint64_t next; /* number of the message after that */
	bool asleep;   /* suspended: whoever publishes wakes it */
};

struct streams {
	pthread_mutex_t lock;
	struct message *ring[MESSAGES_MAX];
	uint64_t count; /* messages ever */
	uint64_t id;	/* of the last event: comments have none */
	uint64_t last_ns;
	struct reader *readers[STREAMS_MAX];
	unsigned n;
	bool ending;
};

int streams_new(struct streams **out)
{
	struct streams *s = calloc(1, sizeof(*s));

	if (!s)
		return fail(-ENOMEM, "event streams");
	pthread_mutex_init(&s->lock, NULL);
	*out = s;
	return 0;
}

static void put(struct message *m)
{
	if (m && !--m->refs)
		free(m);
}

void streams_free(struct streams *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < MESSAGES_MAX; i++)
		put(s->ring[i]);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static struct message *message_new(const char *event, uint64_t id, json_t *data)
{
	char *text = data ? json_dumps(data, JSON_COMPACT) : NULL;
	size_t room = (text ? strlen(text) : 0) + 96;
	struct message *m = text || !event ? malloc(sizeof(*m) + room) : NULL;

	json_decref(data);
	if (m && event)
		m->len = (size_t)snprintf(m->text, room, "event: %s\nid: %llu\ndata: %s\n\n",
					  event, (unsigned long long)id, text);
	else if (m)
		m->len = (size_t)snprintf(m->text, room, ": keep\n\n");
	if (m)
		m->refs = 1;
	free(text);
	return m;
}

static void wake_all(struct streams *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		if (!s->readers[i]->asleep)
			continue;
		s->readers[i]->asleep = false;
		MHD_resume_connection(s->readers[i]->connection);
	}
}

static void publish(struct streams *s, const char *event, json_t *data)
{
	struct message *m, **slot;

	pthread_mutex_lock(&s->lock);
	m = message_new(event, event ? ++s->id : 0, data);
	if (m) {
		slot = &s->ring[s->count++ % MESSAGES_MAX];
		put(*slot);
		*slot = m;
		s->last_ns = now_ns();
		wake_all(s);
	}
	pthread_mutex_unlock(&s->lock);
}

void streams_publish(struct streams *s, const char *event, json_t *data)
{
	publish(s, event, data);
}

void streams_keep(struct streams *s)
{
	if (now_ns() - s->last_ns > KEEP_NS)
		publish(s, NULL, NULL);
}

bool streams_wanted(struct streams *s)
{
	return streams_count(s) > 0;
}

unsigned streams_count(struct streams *s)
{
	unsigned n;

	pthread_mutex_lock(&s->lock);
	n = s->n;
	pthread_mutex_unlock(&s->lock);
	return n;
}

void streams_end(struct streams *s)
{
	pthread_mutex_lock(&s->lock);
	s->ending = true;
	wake_all(s);
	pthread_mutex_unlock(&s->lock);
}

/* The next message for @r; false: there is none yet. */
static bool next_message(struct streams *s, struct reader *r)
{
	put(r->message);
	r->message = NULL;
	r->at = 0;
	if (r->next + MESSAGES_MAX < s->count)
		r->next = s->count - 1; /* too slow: on with the newest */
	if (r->next == s->count)
		return false;
	r->message = s->ring[r->next++ % MESSAGES_MAX];
	r->message->refs++;
	return true;
}

static ssize_t read_some(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct reader *r = cls;
	struct streams *s = r->streams;
	ssize_t len = 0;

	pthread_mutex_lock(&s->lock);
	if (s->ending) {
		len = MHD_CONTENT_READER_END_OF_STREAM;
	} else if ((r->message && r->at < r->message->len) || next_message(s, r)) {
		size_t left = r->message->len - r->at;

		len = (ssize_t)(left < max ? left : max);
		memcpy(buf, r->message->text + r->at, (size_t)len);
		r->at += (size_t)len;
	} else {
		r->asleep = true;
		MHD_suspend_connection(r->connection);
	}
	pthread_mutex_unlock(&s->lock);
	return len;
}

static void forget(void *cls)
{
	struct reader *r = cls;
	struct streams *s = r->streams;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < s->n; i++) {
		if (s->readers[i] != r)
			continue;
		s->readers[i] = s->readers[--s->n];
		break;
	}
	put(r->message);
	pthread_mutex_unlock(&s->lock);
	free(r);
}

struct MHD_Response *streams_response(struct streams *s, struct MHD_Connection *connection,
				      json_t *hello)
{
	struct reader *r = calloc(1, sizeof(*r));
	struct MHD_Response *response = NULL;

	pthread_mutex_lock(&s->lock);
	if (r && s->n < STREAMS_MAX && !s->ending) {
		*r = (struct reader){.streams = s, .connection = connection, .next = s->count};
		r->message = message_new("hello", s->id, hello);
		s->readers[s->n++] = r;
	} else {
		json_decref(hello);
		free(r);
		r = NULL;
	}
	pthread_mutex_unlock(&s->lock);
	if (r)
		response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_some,
							     r, forget);
	if (r && !response)
		forget(r);
	return response;
}
