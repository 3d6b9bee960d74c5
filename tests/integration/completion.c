// SPDX-License-Identifier: GPL-2.0
/* completion/icp-bpf, in a real bash: every verb, and every option that its help names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/robust_procs.h"

/* What bash offers for the words of a line, the last of which is begun; between newlines, to be freed. */
static char *offered(const char *words, int n)
{
	char script[1024], *text, *out;
	struct run r;

	snprintf(script, sizeof(script),
		 "source completion/icp-bpf; COMP_WORDS=(%s %s); COMP_CWORD=%d; _icp_bpf; "
		 "printf '\\n'; printf '%%s\\n' \"${COMPREPLY[@]}\"",
		 built("icp-bpf"), words, n);
	run_start(&r, NULL,
		  (const char *[]){"bash", "--norc", "--noprofile", "-eu", "-c", script, NULL});
	run_wait(&r, 60);
	text = run_text(r.err);
	if (WEXITSTATUS(r.status) || text[0])
		fail_msg("%s: %s", words, text);
	free(text);
	out = run_text(r.out);
	run_close(&r);
	return out;
}

static bool has(const char *list, const char *word)
{
	char line[128];

	snprintf(line, sizeof(line), "\n%s\n", word);
	return strstr(list, line) != NULL;
}

static void expect(const char *words, int n, const char *word, bool there)
{
	char *list = offered(words, n);

	if (has(list, word) != there)
		fail_msg("'%s' offers%s: %s", words, list, word);
	free(list);
}

static char *help(const char *verb)
{
	struct run r;
	char *text;

	assert_int_equal(icp(&r, NULL, "help", verb, NULL), 0);
	text = run_text(r.out);
	run_close(&r);
	return text;
}

/* Every --word at the beginning of a line of help, found in another way than the completion finds them. */
static size_t check_options(const char *verb)
{
	char words[64], *text = help(verb), *list, *save = NULL;
	size_t n = 0;

	snprintf(words, sizeof(words), "%s --", verb);
	list = offered(words, 2);
	for (char *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		size_t indent = strspn(line, " "), len;
		char option[64];

		if (line[indent] == '-' && line[indent + 1] != '-' && line[indent + 2] == ',')
			indent += 4;
		if (indent != 6 || strncmp(line + indent, "--", 2))
			continue;
		len = 2 + strspn(line + indent + 2, "abcdefghijklmnopqrstuvwxyz-");
		snprintf(option, sizeof(option), "%.*s", (int)len, line + indent);
		if (!has(list, option))
			fail_msg("%s: %s is not offered: %s", verb, option, list);
		n++;
	}
	if (!has(list, "--help"))
		fail_msg("%s: --help is not offered", verb);
	free(list);
	free(text);
	return n;
}

static void every_verb(void **state)
{
	char *text = help(NULL), *list = offered("''", 1), *save = NULL;
	size_t verbs = 0, options = 0;

	for (char *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char verb[32];

		if (strncmp(line, "  ", 2) || sscanf(line + 2, "%31[a-z]", verb) != 1)
			continue;
		if (!has(list, verb))
			fail_msg("%s is not offered:%s", verb, list);
		if (!strcmp(verb, "help"))
			continue;
		options += check_options(verb);
		verbs++;
	}
	assert_true(verbs >= 13);
	assert_true(options >= 60);
	free(list);
	free(text);
}

static void what_was_begun(void **state)
{
	char pid[32];

	expect("tra", 1, "trace", true);
	expect("tra", 1, "checkpoint", false);
	expect("trace --int", 2, "--interval", true);
	expect("trace --int", 2, "--pid", false);
	expect("serve --tok", 2, "--token-file", true);
	expect("help ser", 2, "serve", true);
	expect("trace --tracker u", 3, "uffd", true);
	expect("list --dir compl", 3, "completion", true);
	snprintf(pid, sizeof(pid), "%d", getpid());
	expect("trace --pid ''", 3, pid, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_verb),
		cmocka_unit_test(what_was_begun),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
