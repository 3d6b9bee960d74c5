// SPDX-License-Identifier: GPL-2.0
/* What the keys of `icp-bpf top` do. */
#include <ctype.h>
#include <string.h>

#include "cli/top.h"

#define PAGE_LINES 10

static void type_dir(struct top_screen *s, enum top_key key, int ch)
{
	size_t len = strlen(s->dir);

	switch (key) {
	case TOP_KEY_BACK:
		s->question = ASK_NOTHING;
		break;
	case TOP_KEY_ENTER:
		s->question = len ? ASK_SURE : ASK_NOTHING;
		break;
	case TOP_KEY_ERASE:
		if (len)
			s->dir[len - 1] = 0;
		break;
	case TOP_KEY_OTHER:
		if (ch == 'U' - '@') { /* as in a shell */
			s->dir[0] = 0;
		} else if (ch >= ' ' && ch < 256 && ch != 127 && len + 1 < sizeof(s->dir)) {
			s->dir[len] = (char)ch;
			s->dir[len + 1] = 0;
		}
		break;
	default:
		break;
	}
}

static enum top_action take_answer(struct top_screen *s, enum top_key key, int ch)
{
	if (key == TOP_KEY_RESIZE)
		return TOP_GO_ON;
	if (s->question == ASK_DIR) {
		type_dir(s, key, ch);
		return TOP_GO_ON;
	}
	s->question = ASK_NOTHING;
	if (key == TOP_KEY_OTHER && (ch == 'y' || ch == 'Y'))
		return TOP_CHECKPOINT;
	snprintf(s->message, sizeof(s->message), "no checkpoint");
	return TOP_GO_ON;
}

static void ask_for_checkpoint(struct top_screen *s, const struct top *t)
{
	if (top_row_selected(t))
		s->question = ASK_DIR;
	else
		snprintf(s->message, sizeof(s->message), "there is no process");
}

static enum top_action take_letter(struct top_screen *s, struct top *t, int ch)
{
	static const char sorts[TOP_SORTS + 1] = "rwfpn";
	const char *sort = ch > 0 && ch < 128 ? strchr(sorts, ch) : NULL;

	switch (ch) {
	case 'q':
		return TOP_QUIT;
	case 'c':
		ask_for_checkpoint(s, t);
		return TOP_GO_ON;
	case 'h':
	case '?':
		s->mode = s->mode == TOP_HELP ? TOP_LIST : TOP_HELP;
		return TOP_GO_ON;
	case 'k':
		top_move(t, -1);
		return TOP_GO_ON;
	case 'j':
		top_move(t, 1);
		return TOP_GO_ON;
	default:
		if (sort)
			top_sort_by(t, (enum top_sort)(sort - sorts));
		return TOP_GO_ON;
	}
}

enum top_action top_take_key(struct top_screen *s, struct top *t, enum top_key key, int ch)
{
	if (key != TOP_KEY_RESIZE)
		s->message[0] = 0;
	if (s->question != ASK_NOTHING)
		return take_answer(s, key, ch);
	switch (key) {
	case TOP_KEY_UP:
		top_move(t, -1);
		break;
	case TOP_KEY_DOWN:
		top_move(t, 1);
		break;
	case TOP_KEY_PAGE_UP:
		top_move(t, -PAGE_LINES);
		break;
	case TOP_KEY_PAGE_DOWN:
		top_move(t, PAGE_LINES);
		break;
	case TOP_KEY_HOME:
		top_move(t, -(int)t->rows.n);
		break;
	case TOP_KEY_END:
		top_move(t, (int)t->rows.n);
		break;
	case TOP_KEY_ENTER:
		top_move(t, 0); /* from now on that one, wherever it is in the list */
		s->mode = top_row_selected(t) ? TOP_PROCESS : TOP_LIST;
		break;
	case TOP_KEY_BACK:
	case TOP_KEY_ERASE:
		s->mode = TOP_LIST;
		break;
	case TOP_KEY_OTHER:
		return take_letter(s, t, ch);
	default:
		break;
	}
	return TOP_GO_ON;
}
