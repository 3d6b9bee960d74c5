// SPDX-License-Identifier: GPL-2.0
/* The result of a checkpoint as JSON: what the control socket carries and `checkpoint --json` prints. */
#include "session/result.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static json_t *peers_to_json(const struct dump_result *r)
{
	json_t *list = json_array();

	for (size_t i = 0; i < r->n_peers; i++) {
		const struct dump_peer *p = &r->peers[i];
		char key[16];

		snprintf(key, sizeof(key), "0x%08x", (unsigned)p->key);
		json_array_append_new(list, json_pack("{s:i, s:s%, s:s, s:i}", "pid", p->pid,
						      "comm", p->comm, strlen(p->comm), "key",
						      key, "id", p->shmid));
	}
	return list;
}

static void peers_from_json(json_t *list, struct dump_result *r)
{
	json_t *each;
	size_t i;

	json_array_foreach(list, i, each)
	{
		struct dump_peer *p = &r->peers[r->n_peers];
		const char *comm, *key;

		if (r->n_peers == DUMP_PEERS ||
		    json_unpack(each, "{s:i, s:s, s:s, s:i}", "pid", &p->pid, "comm", &comm,
				"key", &key, "id", &p->shmid))
			return;
		snprintf(p->comm, sizeof(p->comm), "%s", comm);
		p->key = (int32_t)strtoul(key, NULL, 16);
		r->n_peers++;
	}
}

json_t *result_to_json(const struct dump_result *r)
{
	return json_pack(
		"{s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:I, s:f, s:f, s:s, s:s, "
		"s:{s:f, s:f, s:f, s:f}, s:s, s:o}",
		"version", (int)r->version, "parent", (int)r->parent, "type",
		r->incremental ? "incremental" : "full", "processes", (json_int_t)r->processes,
		"threads", (json_int_t)r->threads, "pages", (json_int_t)r->pages, "zero_pages",
		(json_int_t)r->zero_pages, "bytes_written", (json_int_t)r->bytes_written,
		"precopy_rounds", (int)r->precopy_rounds, "stale_pages",
		(json_int_t)r->stale_pages, "pause_seconds", (double)r->pause_ns / 1e9,
		"total_seconds", (double)r->total_ns / 1e9, "tracker",
		r->tracker ? r->tracker : "", "found_by", r->found_by ? r->found_by : "",
		"pause", "freeze_seconds", (double)r->phase.freeze_ns / 1e9, "dirty_seconds",
		(double)r->phase.dirty_ns / 1e9, "copy_seconds", (double)r->phase.copy_ns / 1e9,
		"state_seconds", (double)r->phase.state_ns / 1e9, "held_back", r->held,
		"shm_peers", peers_to_json(r));
}

static const char *known_word(const char *word)
{
	static const char *const words[] = {"events", "scan", "hash",
					    "uffd",   "kmod", "softdirty"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(word, words[i]))
			return words[i];
	return "";
}

int result_from_json(const json_t *from, struct dump_result *r)
{
	int version, parent, rounds;
	json_int_t processes, threads, pages, zero, bytes, stale;
	double pause, total, freeze, dirty, copy, state;
	const char *type, *tracker, *found_by, *held;

	if (json_unpack((json_t *)from,
			"{s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:I, s:F, s:F, s:s, "
			"s:s, s:{s:F, s:F, s:F, s:F}, s:s}",
			"version", &version, "parent", &parent, "type", &type, "processes",
			&processes, "threads", &threads, "pages", &pages, "zero_pages", &zero,
			"bytes_written", &bytes, "precopy_rounds", &rounds, "stale_pages",
			&stale, "pause_seconds", &pause, "total_seconds", &total, "tracker",
			&tracker, "found_by", &found_by, "pause", "freeze_seconds", &freeze,
			"dirty_seconds", &dirty, "copy_seconds", &copy, "state_seconds", &state,
			"held_back", &held))
		return fail(-EPROTO, "the session's answer");
	*r = (struct dump_result){
		.version = (uint32_t)version,
		.parent = (uint32_t)parent,
		.incremental = !strcmp(type, "incremental"),
		.processes = (uint64_t)processes,
		.threads = (uint64_t)threads,
		.pages = (uint64_t)pages,
		.zero_pages = (uint64_t)zero,
		.bytes_written = (uint64_t)bytes,
		.precopy_rounds = (unsigned)rounds,
		.stale_pages = (uint64_t)stale,
		.pause_ns = (uint64_t)(pause * 1e9),
		.total_ns = (uint64_t)(total * 1e9),
		.tracker = known_word(tracker),
		.found_by = known_word(found_by),
		.phase = {(uint64_t)(freeze * 1e9), (uint64_t)(dirty * 1e9),
			  (uint64_t)(copy * 1e9), (uint64_t)(state * 1e9)},
	};
	snprintf(r->held, sizeof(r->held), "%s", held);
	peers_from_json(json_object_get(from, "shm_peers"), r);
	return 0;
}
