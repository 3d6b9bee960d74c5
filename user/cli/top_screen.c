// SPDX-License-Identifier: GPL-2.0
#include "cli/top.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <string.h>
#include <unistd.h>

#define NCURSES_NOMACROS
#define NCURSES_WIDECHAR 1
#include <ncurses.h>

#include "obs/braille.h"
#include "obs/view.h"

#define LINE_MAX_BYTES 512
#define GRAPH_ROWS 6
#define GRAPH_MAX 400 /* columns */
#define ESCAPE_MS                                                                              \
	25 /* after which an Esc is a key of its own, and no part of another one; ssh needs some */

static SCREEN *screen;
static int messages = -1; /* what stderr was: notes would be drawn over the screen */

int screen_open(struct top_screen *s)
{
	const char *term = getenv("TERM");

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return refuse(-ENOTTY, "top needs a terminal; top --batch prints once");
	setlocale(LC_CTYPE, "");
	s->utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
	screen = term && *term ? newterm(NULL, stdout, stdin) : NULL;
	if (!screen)
		return refuse(
			-ENOTTY,
			"the terminal '%s' (TERM) is not known here: set TERM to one that "
			"is (vt100, xterm), or use top --batch",
			term ? term : "");
	messages = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (messages >= 0 && isatty(STDERR_FILENO) && !freopen("/dev/null", "w", stderr))
		return fail(-errno, "open /dev/null");
	set_escdelay(ESCAPE_MS);
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	curs_set(0);
	return 0;
}

void screen_close(void)
{
	if (!screen)
		return;
	endwin();
	delscreen(screen);
	fflush(stderr);
	if (messages >= 0) {
		dup2(messages, STDERR_FILENO);
		close(messages);
		messages = -1;
	}
	screen = NULL;
}

/* ---- keys ---- */

static enum top_key special(int ch)
{
	static const struct {
		int ch;
		enum top_key key;
	} keys[] = {{KEY_UP, TOP_KEY_UP},
		    {KEY_DOWN, TOP_KEY_DOWN},
		    {KEY_PPAGE, TOP_KEY_PAGE_UP},
		    {KEY_NPAGE, TOP_KEY_PAGE_DOWN},
		    {KEY_HOME, TOP_KEY_HOME},
		    {KEY_END, TOP_KEY_END},
		    {KEY_ENTER, TOP_KEY_ENTER},
		    {'\r', TOP_KEY_ENTER},
		    {'\n', TOP_KEY_ENTER},
		    {KEY_RIGHT, TOP_KEY_ENTER},
		    {KEY_LEFT, TOP_KEY_BACK},
		    {27, TOP_KEY_BACK},
		    {KEY_BACKSPACE, TOP_KEY_ERASE},
		    {127, TOP_KEY_ERASE},
		    {8, TOP_KEY_ERASE},
		    {KEY_RESIZE, TOP_KEY_RESIZE}};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (keys[i].ch == ch)
			return keys[i].key;
	return TOP_KEY_OTHER;
}

enum top_key screen_key(int *ch)
{
	*ch = getch();
	return *ch == ERR ? TOP_KEY_NONE : special(*ch);
}

/* ---- lines ---- */

/* Cut to the width, on a row that is there. */
static void line_at(int row, int attributes, const char *text)
{
	char clean[LINE_MAX_BYTES];

	if (row < 0 || row >= LINES)
		return;
	top_clean(text, clean, sizeof(clean));
	attrset(attributes);
	mvaddnstr(row, 0, clean, COLS);
	if (attributes & A_REVERSE)
		for (int column = (int)strlen(clean); column < COLS; column++)
			mvaddch(row, column, ' ');
	attrset(A_NORMAL);
}

static void say(int row, int attributes, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void say(int row, int attributes, const char *fmt, ...)
{
	char text[LINE_MAX_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	line_at(row, attributes, text);
}

static void draw_list(const struct top_screen *s, const struct top *t)
{
	int selected = top_selected(t), room = LINES - 3, first = 0;
	char text[LINE_MAX_BYTES];

	say(0, A_BOLD, "icp-bpf top: %zu process%s, %u other session%s", t->rows.n,
	    t->rows.n == 1 ? "" : "es", s->sessions, s->sessions == 1 ? "" : "s");
	top_header(t, text, sizeof(text));
	line_at(1, A_REVERSE, text);
	if (!t->rows.n)
		say(3, 0,
		    "nothing is traced: icp-bpf top --pid PID, or icp-bpf trace --pid PID");
	if (selected >= room && room > 0)
		first = selected - room + 1;
	for (int i = first; i < (int)t->rows.n && i - first < room; i++) {
		top_line(t, t->rows.data[i], text, sizeof(text));
		line_at(2 + i - first, i == selected ? A_REVERSE | A_BOLD : 0, text);
	}
}

/* ---- a process ---- */

static int draw_graph(const struct top_screen *s, const struct top_row *r, int row)
{
	unsigned columns = COLS > 14 ? (unsigned)COLS - 12 : 0;
	char text[3 * GRAPH_MAX + 1];
	double most = 0;

	columns = columns > GRAPH_MAX ? GRAPH_MAX : columns;
	for (size_t i = 0; i < r->n_history; i++)
		most = r->history[i] > most ? r->history[i] : most;
	for (unsigned i = 0; columns && i < GRAPH_ROWS && row < LINES - 1; i++, row++) {
		if (!i)
			say(row, 0, "%8s/s", human_bytes(most, (char[16]){0}));
		if (i == GRAPH_ROWS - 1)
			say(row, 0, "%10s", "0");
		braille_row(r->history, r->n_history, most, GRAPH_ROWS, columns, i, s->utf8,
			    text);
		mvaddstr(row, 11, text);
	}
	return row + 1;
}

static int draw_vmas(const struct process_sample *s, int row, int last)
{
	if (!s->vmas.n || row >= last)
		return row;
	say(row++, A_BOLD, "%10s  %6s  %-31s  %s", "DIRTY", "SHARE", "RANGE", "MEMORY");
	vec_each (v, &s->vmas) {
		if (row >= last)
			break;
		say(row++, 0, "%10s  %5.1f%%  %012" PRIx64 "-%012" PRIx64 "%*s%s",
		    human_count(v->dirty_pages, (char[32]){0}),
		    s->dirty_pages ? 100.0 * (double)v->dirty_pages / (double)s->dirty_pages
				   : 0.0,
		    v->start, v->end, 8, "", v->name);
	}
	return row + 1;
}

static int draw_segments(const struct process_sample *s, int row, int last)
{
	if (!s->segments.n || row >= last)
		return row;
	say(row++, A_BOLD, "%10s  %10s  %10s  %10s  %s", "DIRTY", "BY ALL", "SIZE", "KEY",
	    "ID");
	vec_each (seg, &s->segments) {
		if (row >= last)
			break;
		say(row++, 0, "%10s  %10s  %10s  0x%08x  %d, attached %" PRIu64,
		    human_count(seg->dirty_pages, (char[32]){0}),
		    human_count(seg->dirty_pages_all, (char[32]){0}),
		    human_bytes((double)seg->size, (char[16]){0}), (unsigned)seg->key, seg->id,
		    seg->attach_count);
	}
	return row + 1;
}

static void draw_writers(const struct process_sample *s, int row, int last)
{
	if (!s->writers.n || row >= last)
		return;
	say(row++, A_BOLD, "%10s  %7s  %-15s  %s", "FAULTS", "THREAD", "NAME", "FUNCTION");
	vec_each (w, &s->writers) {
		if (row >= last)
			break;
		say(row++, 0, "%10s  %7d  %-15s  %s%s", human_count(w->faults, (char[32]){0}),
		    w->tid, w->comm, w->function,
		    w->kernel_faults * 2 > w->faults ? " (kernel)" : "");
	}
}

/* Each list gets a part of what is left, so that all are to be seen. */
static void draw_process(const struct top_screen *s, const struct top *t)
{
	const struct top_row *r = top_row_selected(t);
	int row = 2, last = LINES - 1, left;
	char text[LINE_MAX_BYTES];

	if (!r || r->s.pid != t->selected || r->session != t->selected_session) {
		say(0, A_BOLD, "pid %d", t->selected);
		say(2, 0, "it has ended, or is no longer traced");
		return;
	}
	top_header(t, text, sizeof(text));
	line_at(0, A_REVERSE, text);
	top_line(t, r, text, sizeof(text));
	line_at(1, A_BOLD, text);
	if (!r->index) {
		say(3, 0, "nothing is sampled yet, or its session only cuts checkpoints");
		return;
	}
	row = draw_graph(s, r, row);
	left = last - row;
	row = draw_vmas(&r->s, row,
			row + left * 2 / 5 + 1 < last ? row + left * 2 / 5 + 1 : last);
	row = draw_segments(&r->s, row, row + left / 5 + 2 < last ? row + left / 5 + 2 : last);
	draw_writers(&r->s, row, last);
}

static void draw_help(void)
{
	static const char *const lines[] = {
		"icp-bpf top",
		"",
		"  up, down, k, j, PgUp, PgDn, Home, End   choose a process",
		"  Enter        open it: rate, memory areas, segments, who writes",
		"  Esc, left    back to the list",
		"  r w f p n    sort by rate, write working set (10 s), faults, pid, name; "
		"again: the other way",
		"  c            cut a checkpoint of the process with its descendants",
		"  h, ?         this",
		"  q            quit; what is traced runs on",
		"",
		"  RATE: bytes of different pages written in a second. WWS: different pages "
		"written in the last 1, 10, 60 s.",
		"  LOST: events that were lost; rate and working sets are exact all the same.",
		"  SESSION: who traces it: own, or the pid of another icp-bpf. -: that one "
		"only cuts checkpoints.",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		line_at((int)i, i ? 0 : A_BOLD, lines[i]);
}

static void draw_bottom(const struct top_screen *s, const struct top *t)
{
	const struct top_row *r = top_row_selected(t);
	const char *dir = s->dir;
	int room = COLS > 50 ? COLS - 45 : 10;

	/* of a long path the end, where one is typing */
	if ((int)strlen(dir) > room)
		dir += (int)strlen(dir) - room;
	if (s->question == ASK_DIR)
		say(LINES - 1, A_REVERSE, "checkpoint of pid %d, directory (Esc: no): %s_",
		    r ? r->s.pid : 0, dir);
	else if (s->question == ASK_SURE)
		say(LINES - 1, A_REVERSE, "checkpoint of pid %d into %s? y/n", r ? r->s.pid : 0,
		    dir);
	else if (s->message[0])
		line_at(LINES - 1, A_REVERSE, s->message);
	else
		line_at(LINES - 1, A_REVERSE,
			s->mode == TOP_LIST
				? "Enter open  r w f p n sort  c checkpoint  h help  q quit"
				: "Esc back  c checkpoint  h help  q quit");
}

void screen_draw(const struct top_screen *s, const struct top *t)
{
	erase();
	if (s->mode == TOP_HELP)
		draw_help();
	else if (s->mode == TOP_PROCESS)
		draw_process(s, t);
	else
		draw_list(s, t);
	draw_bottom(s, t);
	refresh();
}
