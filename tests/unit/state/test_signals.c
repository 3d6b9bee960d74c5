// SPDX-License-Identifier: GPL-2.0
/* Dispositions, pending signals, alternate stacks; timers; and that all of it stays as it is.
 */
#include "unit/state/dumping.h"

#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "state/signals.pb-c.h"
#include "state/timers.pb-c.h"

static char alternate[32768];

static void handler(int sig)
{
}

static void action_handler(int sig, siginfo_t *info, void *context)
{
}

static void set_up_signals(struct board *b)
{
	struct sigaction sa = {.sa_sigaction = action_handler,
			       .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	union sigval value = {.sival_ptr = (void *)0x1234567890ab};
	sigset_t block;

	sigaddset(&sa.sa_mask, SIGHUP);
	sigaddset(&sa.sa_mask, SIGRTMAX);
	sigaction(SIGUSR1, &sa, NULL);
	b->value[0] = (uint64_t)(uintptr_t)action_handler;
	b->value[1] = (uint64_t)(uintptr_t)alternate;
	signal(SIGUSR2, SIG_IGN);
	for (int sig = SIGRTMIN; sig < SIGRTMIN + 8; sig++)
		signal(sig, handler);
	sa = (struct sigaction){.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
	sigaction(SIGCHLD, &sa, NULL);
	sigaltstack(&stack, NULL);

	sigemptyset(&block);
	sigaddset(&block, SIGRTMIN);
	sigaddset(&block, SIGTERM);
	sigprocmask(SIG_BLOCK, &block, NULL);
	for (int i = 0; i < 40; i++) {
		value.sival_ptr = (void *)(0x1234567890ab + (uintptr_t)i);
		sigqueue(getpid(), SIGRTMIN, value);
	}
	syscall(SYS_tgkill, getpid(), getpid(), SIGTERM);
	b->value[2] = (uint64_t)getpid();
}

static bool signals_unchanged(struct board *b)
{
	struct timespec now = {0};
	siginfo_t info;
	sigset_t set;
	stack_t stack;
	struct sigaction sa;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	for (int i = 0; i < 40; i++)
		if (sigtimedwait(&set, &info, &now) != SIGRTMIN ||
		    info.si_value.sival_ptr != (void *)(0x1234567890ab + (uintptr_t)i))
			return false;
	if (sigtimedwait(&set, &info, &now) >= 0)
		return false;
	sigpending(&set);
	if (!sigismember(&set, SIGTERM))
		return false;
	if (sigaltstack(NULL, &stack) || stack.ss_sp != alternate)
		return false;
	return !sigaction(SIGUSR1, NULL, &sa) && sa.sa_sigaction == action_handler &&
	       !sigaction(SIGUSR2, NULL, &sa) && sa.sa_handler == SIG_IGN;
}

static const Icp__SigAction *action_of(const Icp__SignalState *s, unsigned sig)
{
	for (size_t i = 0; i < s->n_actions; i++)
		if (s->actions[i]->sig == sig)
			return s->actions[i];
	return NULL;
}

static void signals(void **state)
{
	static const struct scene scene = {set_up_signals, signals_unchanged};
	struct child c = child_start(&scene);
	const Icp__SigAction *a;
	Icp__SignalState *s;
	Icp__ThreadSignals *t;
	siginfo_t info;
	struct dump d;

	dump_open(&d, &c.pid, 1);
	dump_take(&d);
	s = blob_of(d.image[0].blobs, d.image[0].n_blobs, "signals",
		    &icp__signal_state__descriptor);
	a = action_of(s, SIGUSR1);
	assert_non_null(a);
	assert_int_equal(a->handler, c.board->value[0]);
	assert_int_equal(a->flags & ~0x4000000ul, SA_SIGINFO | SA_RESTART | SA_ONSTACK);
	assert_int_equal(a->mask, 1ull << (SIGHUP - 1) | 1ull << (SIGRTMAX - 1));
	assert_true(a->restorer != 0);
	assert_int_equal(action_of(s, SIGUSR2)->handler, 1);
	assert_int_equal(action_of(s, SIGCHLD)->handler, 0);
	assert_true(action_of(s, SIGCHLD)->flags & SA_NOCLDWAIT);
	for (int sig = SIGRTMIN; sig < SIGRTMIN + 8; sig++)
		assert_non_null(action_of(s, (unsigned)sig));
	assert_null(action_of(s, SIGINT));

	assert_int_equal(s->n_pending, 40);
	for (unsigned i = 0; i < 40; i++) {
		assert_int_equal(s->pending[i].len, sizeof(info));
		memcpy(&info, s->pending[i].data, sizeof(info));
		assert_int_equal(info.si_signo, SIGRTMIN);
		assert_int_equal(info.si_code, SI_QUEUE);
		assert_ptr_equal(info.si_value.sival_ptr,
				 (void *)(0x1234567890ab + (uintptr_t)i));
	}
	t = blob_of(d.image[0].threads[0]->blobs, d.image[0].threads[0]->n_blobs, "signals",
		    &icp__thread_signals__descriptor);
	assert_int_equal(t->blocked, 1ull << (SIGRTMIN - 1) | 1ull << (SIGTERM - 1));
	assert_int_equal(t->n_pending, 1);
	memcpy(&info, t->pending[0].data, sizeof(info));
	assert_int_equal(info.si_signo, SIGTERM);
	assert_int_equal(info.si_code, SI_TKILL);
	assert_int_equal(t->altstack_sp, c.board->value[1]);
	assert_int_equal(t->altstack_size, sizeof(alternate));
	assert_int_equal(t->altstack_flags, 0);
	print_message("dump %lu us, paused %lu us\n", d.dump_ns / 1000, d.paused_ns / 1000);
	msg_free(s);
	msg_free(t);
	dump_close(&d);
	assert_int_equal(child_end(&c), 0);
}

static timer_t made[2];

static void set_up_timers(struct board *b)
{
	struct itimerval real = {{7, 500}, {1000, 0}}, prof = {{0, 0}, {3000, 0}};
	struct sigevent sev = {.sigev_notify = SIGEV_SIGNAL,
			       .sigev_signo = SIGRTMIN + 3,
			       .sigev_value.sival_ptr = (void *)0xabcdef0123};
	struct itimerspec spec = {{5, 6}, {2000, 0}};

	setitimer(ITIMER_REAL, &real, NULL);
	setitimer(ITIMER_PROF, &prof, NULL);
	timer_create(CLOCK_MONOTONIC, &sev, &made[0]);
	timer_settime(made[0], 0, &spec, NULL);
	sev = (struct sigevent){.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
	sev._sigev_un._tid = getpid();
	timer_create(CLOCK_PROCESS_CPUTIME_ID, &sev, &made[1]);
}

static bool timers_unchanged(struct board *b)
{
	struct itimerval real;
	struct itimerspec spec;

	getitimer(ITIMER_REAL, &real);
	return real.it_value.tv_sec > 900 && !timer_gettime(made[0], &spec) &&
	       spec.it_value.tv_sec > 1900 && !timer_gettime(made[1], &spec) &&
	       !spec.it_value.tv_sec;
}

static bool near(uint64_t ns, uint64_t seconds)
{
	return ns <= seconds * 1000000000u + 20000000u && ns > (seconds - 60) * 1000000000u;
}

static void timers(void **state)
{
	static const struct scene scene = {set_up_timers, timers_unchanged};
	struct child c = child_start(&scene);
	Icp__TimerState *s;
	struct dump d;

	dump_open(&d, &c.pid, 1);
	dump_take(&d);
	s = blob_of(d.image[0].blobs, d.image[0].n_blobs, "timers",
		    &icp__timer_state__descriptor);
	assert_int_equal(s->n_itimers, 2);
	assert_int_equal(s->itimers[0]->which, ITIMER_REAL);
	assert_int_equal(s->itimers[0]->interval_ns, 7000500000ull);
	assert_true(near(s->itimers[0]->value_ns, 1000));
	assert_int_equal(s->itimers[1]->which, ITIMER_PROF);
	assert_true(near(s->itimers[1]->value_ns, 3000));
	assert_int_equal(s->n_timers, 2);
	assert_int_equal(s->timers[0]->clock, CLOCK_MONOTONIC);
	assert_int_equal(s->timers[0]->notify, SIGEV_SIGNAL);
	assert_int_equal(s->timers[0]->signal, SIGRTMIN + 3);
	assert_int_equal(s->timers[0]->value, 0xabcdef0123);
	assert_int_equal(s->timers[0]->interval_ns, 5000000006ull);
	assert_true(near(s->timers[0]->value_ns, 2000));
	assert_int_equal(s->timers[1]->notify, SIGEV_THREAD_ID);
	assert_int_equal(s->timers[1]->tid, c.pid);
	assert_int_equal(s->timers[1]->signal, SIGUSR1);
	assert_int_equal(s->timers[1]->value_ns, 0);
	msg_free(s);
	dump_close(&d);
	assert_int_equal(child_end(&c), 0);
}

/* Every byte of its memory is compared, what is below the stack included, but for what the
 * kernel writes to tell a thread which CPU it is on. */
static void takes_a_signal(struct board *b)
{
	signal(SIGUSR1, handler);
	if (__rseq_size)
		b->value[0] = (uint64_t)(uintptr_t)__builtin_thread_pointer() +
			      (uint64_t)__rseq_offset;
}

/* What is readable, but not the shadow memory of a sanitizer, which is of terabytes. */
static bool counts(const struct vma *v)
{
	return v->kind != VMA_SPECIAL && (v->prot & PROT_READ) && v->end - v->start < 64u << 20;
}

static char *copy_of(pid_t pid, const struct maps *maps, size_t *len)
{
	char path[32], *data = NULL;
	int fd;

	*len = 0;
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	for (size_t i = 0; i < maps->n; i++) {
		const struct vma *v = &maps->data[i];
		size_t size = v->end - v->start;

		if (!counts(v))
			continue;
		data = realloc(data, *len + size);
		assert_int_equal(pread(fd, data + *len, size, (off_t)v->start), size);
		*len += size;
	}
	close(fd);
	return data;
}

static uint64_t address_of(const struct maps *maps, size_t at)
{
	for (size_t i = 0; i < maps->n; i++) {
		const struct vma *v = &maps->data[i];
		size_t size = v->end - v->start;

		if (!counts(v))
			continue;
		if (at < size)
			return v->start + at;
		at -= size;
	}
	return 0;
}

static void memory_is_the_same(void **state)
{
	static const struct scene scene = {takes_a_signal, NULL};
	struct child c = child_start(&scene);
	char *first, *second;
	size_t n, m;
	struct dump d;
	struct maps maps = {0};

	dump_open(&d, &c.pid, 1);
	kill(c.pid, SIGSTOP);
	waitpid(c.pid, NULL, WUNTRACED);
	first = copy_of(c.pid, &d.p[0].maps, &n);
	dump_take(&d);
	assert_true(d.image[0].threads[0]->stopped);
	DO(maps_read(d.p[0].target, &maps));
	second = copy_of(c.pid, &maps, &m);
	assert_int_equal(n, m);
	for (size_t i = 0; i < n; i++)
		if (first[i] != second[i] &&
		    address_of(&maps, i) - c.board->value[0] >= sizeof(struct rseq))
			fail_msg("byte %#lx of memory differs: %#x, was %#x",
				 address_of(&maps, i), (unsigned char)second[i],
				 (unsigned char)first[i]);
	kill(c.pid, SIGCONT);
	free(first);
	free(second);
	maps_free(&maps);
	dump_close(&d);
	assert_int_equal(child_end(&c), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals),
		cmocka_unit_test(timers),
		cmocka_unit_test(memory_is_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
