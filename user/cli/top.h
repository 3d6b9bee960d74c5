/* SPDX-License-Identifier: GPL-2.0 */
/* The screen of `icp-bpf top`: the only user of ncurses. */
#ifndef ICP_CLI_TOP_H
#define ICP_CLI_TOP_H

#include <stdbool.h>

#include "obs/top.h"

enum top_mode { TOP_LIST, TOP_PROCESS, TOP_HELP };

/* What is asked at the bottom, over whatever is shown. */
enum top_question { ASK_NOTHING, ASK_DIR, ASK_SURE };

struct top_screen {
	enum top_mode mode;
	enum top_question question;
	char dir[512];	   /* what was typed */
	char message[512]; /* shown until the next key */
	unsigned sessions; /* others */
	bool utf8;
};

enum top_key {
	TOP_KEY_NONE,  /* nothing more is there */
	TOP_KEY_OTHER, /* a character: *ch */
	TOP_KEY_UP,
	TOP_KEY_DOWN,
	TOP_KEY_PAGE_UP,
	TOP_KEY_PAGE_DOWN,
	TOP_KEY_HOME,
	TOP_KEY_END,
	TOP_KEY_ENTER,
	TOP_KEY_BACK,
	TOP_KEY_ERASE,
	TOP_KEY_RESIZE,
};

/* Refuses, with nothing written, a terminal that ncurses doesn't know, and what is none. */
int screen_open(struct top_screen *s) _must_use_;
void screen_close(void);
void screen_draw(const struct top_screen *s, const struct top *t);
enum top_key screen_key(int *ch);

/* top_keys.c: what a key means. */
enum top_action { TOP_GO_ON, TOP_QUIT, TOP_CHECKPOINT };
enum top_action top_take_key(struct top_screen *s, struct top *t, enum top_key key, int ch);

#endif
