// SPDX-License-Identifier: GPL-2.0
/* Interval timers (alarm(2) is one) and POSIX timers. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "state/kinds.h"
#include "state/restore.h"
#include "state/timers.pb-c.h"

#define TIMERS_VERSION 1
#define TIMERS_MAX 65536

struct timer {
	unsigned id, sig, notify, tid;
	uint64_t value;
	int clock;
	int gettime, overrun; /* handles */
};

/* A process may have a time namespace of its own: it is asked. */
static const clockid_t clocks[2] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME};

struct note {
	int itimers[3];
	int clocks[2];
	VEC(struct timer) timers;
};

static void free_note(void *arg)
{
	struct note *note = arg;

	vec_free(&note->timers);
	free(note);
}

/*
 *     ID: 0
 *     signal: 60/00007fff86e452a8
 *     notify: signal/pid.2634          (or thread/, none/; tid.N with SIGEV_THREAD_ID)
 *     ClockID: 0
 */
static int parse(char *text, struct note *note)
{
	struct timer *t = NULL;

	for (char *line = strtok_r(text, "\n", &text); line;
	     line = strtok_r(NULL, "\n", &text)) {
		char how[16], whose[8];
		unsigned id;

		if (sscanf(line, "ID: %u", &id) == 1) {
			if (note->timers.n == TIMERS_MAX)
				return refuse(-E2BIG, "too many timers");
			t = vec_push(&note->timers);
			if (!t)
				return fail(-ENOMEM, "note timers");
			t->id = id;
		} else if (t && sscanf(line, "signal: %u/%lx", &t->sig, &t->value) == 2) {
			continue;
		} else if (t && sscanf(line, "notify: %15[a-z]/%7[a-z].%u", how, whose,
				       &t->tid) == 3) {
			t->notify = !strcmp(how, "none")     ? SIGEV_NONE
				    : !strcmp(how, "thread") ? SIGEV_THREAD
							     : SIGEV_SIGNAL;
			if (!strcmp(whose, "tid"))
				t->notify |= SIGEV_THREAD_ID;
			else
				t->tid = 0;
		} else if (t) {
			sscanf(line, "ClockID: %d", &t->clock);
		}
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct timer *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int plan(struct state_process *p, void **slot)
{
	struct note *note = *slot = calloc(1, sizeof(*note));
	/* Absent without CONFIG_CHECKPOINT_RESTORE; every kernel with uffd trackers has it. */
	_cleanup_free_ char *text = procfs_text(p->target, "timers");
	int err = note ? 0 : fail(-ENOMEM, "note timers");

	if (!err && text)
		err = parse(text, note);
	if (err)
		return err;
	for (uint64_t which = 0; which < 3; which++) {
		const uint64_t args[6] = {which};

		note->itimers[which] =
			gather_call(p, 0, SYS_getitimer, args, 1, sizeof(struct itimerval));
		if (note->itimers[which] < 0)
			return note->itimers[which];
	}
	for (size_t i = 0; i < 2; i++) {
		const uint64_t args[6] = {(uint64_t)clocks[i]};

		note->clocks[i] =
			gather_call(p, 0, SYS_clock_gettime, args, 1, sizeof(struct timespec));
		if (note->clocks[i] < 0)
			return note->clocks[i];
	}
	if (note->timers.n)
		qsort(note->timers.data, note->timers.n, sizeof(*note->timers.data), compare);
	vec_each (t, &note->timers) {
		const uint64_t args[6] = {t->id};

		t->gettime = gather_call(p, 0, SYS_timer_gettime, args, 1,
					 sizeof(struct itimerspec));
		t->overrun = gather_call(p, 0, SYS_timer_getoverrun, args, 0, 0);
		if (t->gettime < 0 || t->overrun < 0)
			return -ENOMEM;
	}
	return 0;
}

static uint64_t timeval_ns(struct timeval tv)
{
	return (uint64_t)tv.tv_sec * 1000000000u + (uint64_t)tv.tv_usec * 1000u;
}

static uint64_t timespec_ns(struct timespec ts)
{
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int fill_itimer(struct state_process *p, struct note *note, unsigned which,
		       Icp__Itimer *out)
{
	long ret = gather_ret(p, 0, note->itimers[which]);
	struct itimerval value;

	if (ret)
		return fail((int)ret, "interval timer %u", which);
	memcpy(&value, gather_out(p, 0, note->itimers[which]), sizeof(value));
	icp__itimer__init(out);
	out->which = which;
	out->interval_ns = timeval_ns(value.it_interval);
	out->value_ns = timeval_ns(value.it_value);
	return 0;
}

static int fill_timer(struct state_process *p, const struct timer *t, Icp__PosixTimer *out)
{
	long ret = gather_ret(p, 0, t->gettime), overrun = gather_ret(p, 0, t->overrun);
	struct itimerspec value;

	if (ret || overrun < 0)
		return fail((int)(ret ? ret : overrun), "timer %u", t->id);
	memcpy(&value, gather_out(p, 0, t->gettime), sizeof(value));
	icp__posix_timer__init(out);
	out->id = t->id;
	out->clock = (uint32_t)t->clock;
	out->notify = t->notify;
	out->signal = t->sig;
	out->value = t->value;
	out->tid = t->tid;
	out->interval_ns = timespec_ns(value.it_interval);
	out->value_ns = timespec_ns(value.it_value);
	out->overrun = (uint32_t)overrun;
	return 0;
}

static uint64_t clock_ns(struct state_process *p, int handle)
{
	struct timespec ts;

	if (gather_ret(p, 0, handle))
		return 0;
	memcpy(&ts, gather_out(p, 0, handle), sizeof(ts));
	return timespec_ns(ts);
}

static int finish(struct state_process *p, void **slot)
{
	struct note *note = *slot;
	Icp__TimerState msg = ICP__TIMER_STATE__INIT;
	Icp__Itimer itimers[3], *itimer_list[3];
	_cleanup_free_ Icp__PosixTimer *timers = calloc(note->timers.n + 1, sizeof(*timers));
	_cleanup_free_ Icp__PosixTimer **list = calloc(note->timers.n + 1, sizeof(*list));
	int err = timers && list ? 0 : fail(-ENOMEM, "note timers");

	msg.itimers = itimer_list;
	msg.monotonic_ns = clock_ns(p, note->clocks[0]);
	msg.boottime_ns = clock_ns(p, note->clocks[1]);
	for (unsigned i = 0; i < 3 && !err; i++) {
		err = fill_itimer(p, note, i, &itimers[i]);
		if (!err && itimers[i].value_ns + itimers[i].interval_ns)
			itimer_list[msg.n_itimers++] = &itimers[i];
	}
	msg.timers = list;
	for (size_t i = 0; i < note->timers.n && !err; i++) {
		err = fill_timer(p, &note->timers.data[i], &timers[i]);
		list[msg.n_timers++] = &timers[i];
	}
	return err ? err
		   : state_pack_blob(&p->image->blobs, &p->image->n_blobs, "timers",
				     TIMERS_VERSION, &msg.base);
}

/* ---- restore ---- */

static int restore_check_timers(struct state_restore *r, void **slot)
{
	Icp__TimerState *msg;
	int err = restore_unpack(r->image->blobs, r->image->n_blobs, "timers", TIMERS_VERSION,
				 &icp__timer_state__descriptor, &msg);

	if (err)
		return err;
	*slot = msg;
	if (msg->n_timers > TIMERS_MAX)
		return refuse(-EBADMSG, "too many timers");
	for (size_t i = 0; i < msg->n_itimers; i++)
		if (msg->itimers[i]->which > 2)
			return refuse(-EBADMSG, "an interval timer makes no sense");
	return 0;
}

static void restore_free_timers(void *note)
{
	protobuf_c_message_free_unpacked(note, NULL);
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
}

static struct timeval timeval_of(uint64_t ns)
{
	return (struct timeval){(time_t)(ns / 1000000000u),
				(suseconds_t)(ns % 1000000000u / 1000u)};
}

/* Without PR_TIMER_CREATE_RESTORE_IDS (Linux 6.15) ids only count up from 0. */
static int create_timer(const Icp__PosixTimer *t, uint64_t *next, bool exact, struct batch *b)
{
	struct sigevent event = {.sigev_value.sival_ptr = (void *)t->value,
				 .sigev_signo = (int)t->signal,
				 .sigev_notify = (int)t->notify};
	int32_t id = (int32_t)t->id;
	uint64_t at_event, at_id;
	int err;

	event._sigev_un._tid = (int)t->tid;
	for (bool last = false; !last;) {
		last = exact || *next == t->id;
		err = batch_data(b, &event, sizeof(event), &at_event);
		if (!err)
			err = batch_data(b, &id, sizeof(id), &at_id);
		if (!err)
			err = batch_call(
				b, "make a timer", SYS_timer_create,
				BATCH_ARGS((uint64_t)(int32_t)t->clock, at_event, at_id));
		if (!err && !last)
			err = batch_call(b, "skip a timer", SYS_timer_delete,
					 BATCH_ARGS(*next));
		if (err)
			return err;
		++*next;
	}
	return 0;
}

#define TIMER_RESTORE_IDS 77 /* PR_TIMER_CREATE_RESTORE_IDS */

/* Made here, when all threads are there; started in settle. */
static int create_timers(const Icp__TimerState *msg, struct batch *b)
{
	uint64_t next = 0;
	bool exact;
	long ret;
	int err;

	if (!msg->n_timers)
		return 0;
	err = batch_run(b);
	if (!err)
		err = batch_try(b, SYS_prctl, BATCH_ARGS(TIMER_RESTORE_IDS, 1));
	/* the mode as it is now, or an error where there is none */
	if (!err)
		err = batch_now_try(b, SYS_prctl, BATCH_ARGS(TIMER_RESTORE_IDS, 2), &ret);
	if (err)
		return err;
	exact = ret == 1;
	for (size_t i = 0; i < msg->n_timers && !err; i++) {
		if (!exact && (msg->timers[i]->id < next || msg->timers[i]->id > TIMERS_MAX))
			return refuse(-EBADMSG, "timer %u can't be made", msg->timers[i]->id);
		err = create_timer(msg->timers[i], &next, exact, b);
	}
	return err ? err : batch_try(b, SYS_prctl, BATCH_ARGS(TIMER_RESTORE_IDS, 0));
}

/*
 * The kernel starts a repeating ITIMER_REAL again when its signal is taken, not when it is sent:
 * in between getitimer() says that nothing is left. A signal that we bring back doesn't start it.
 */
static uint64_t itimer_left(const Icp__Itimer *t)
{
	return t->which == ITIMER_REAL && !t->value_ns ? t->interval_ns : t->value_ns;
}

static int restore_settle_timers(struct state_restore *r, void *arg, struct batch *b)
{
	const Icp__TimerState *msg = arg;
	int err = create_timers(msg, b);
	uint64_t at;

	for (size_t i = 0; i < msg->n_timers && !err; i++) {
		const Icp__PosixTimer *t = msg->timers[i];
		struct itimerspec value = {timespec_of(t->interval_ns),
					   timespec_of(t->value_ns)};

		if (!t->value_ns)
			continue;
		err = batch_data(b, &value, sizeof(value), &at);
		if (!err)
			err = batch_call(b, "start a timer", SYS_timer_settime,
					 BATCH_ARGS(t->id, 0, at, 0));
	}
	for (size_t i = 0; i < msg->n_itimers && !err; i++) {
		const Icp__Itimer *t = msg->itimers[i];
		struct itimerval value = {timeval_of(t->interval_ns),
					  timeval_of(itimer_left(t))};

		err = batch_data(b, &value, sizeof(value), &at);
		if (!err)
			err = batch_call(b, "start an interval timer", SYS_setitimer,
					 BATCH_ARGS(t->which, at, 0));
	}
	return err;
}

static const struct restore_ops timers_restore = {.check = restore_check_timers,
						  .settle = restore_settle_timers,
						  .free_note = restore_free_timers};

const struct state_ops state_timers = {.name = "timers",
				       .plan = plan,
				       .finish = finish,
				       .free_note = free_note,
				       .restore = &timers_restore};
