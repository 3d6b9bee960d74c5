// SPDX-License-Identifier: GPL-2.0
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "serve/serve.h"

void serve_config_init(struct serve_config *c)
{
	*c = (struct serve_config){.interval_s = 1, .mtbf_s = 86400};
}

static void free_strings(string_list *list)
{
	vec_each (s, list)
		free(*s);
	vec_free(list);
}

void serve_config_free(struct serve_config *c)
{
	free(c->listen);
	free(c->match);
	free(c->token_file);
	free(c->tracker);
	free_strings(&c->cgroups);
	free_strings(&c->dirs);
	vec_free(&c->pids);
}

static int set_text(char **slot, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return fail(-ENOMEM, "settings");
	free(*slot);
	*slot = copy;
	return 0;
}

static int add_text(string_list *list, const char *value)
{
	char **slot = vec_push(list);

	return slot ? set_text(slot, value) : fail(-ENOMEM, "settings");
}

static int set_seconds(double *slot, const char *name, const char *value, double min)
{
	static const struct {
		const char *unit;
		double seconds;
	} units[] = {{"", 1}, {"s", 1}, {"ms", 1e-3}, {"m", 60}, {"h", 3600}, {"d", 86400}};
	char *end;
	double n = strtod(value, &end);

	for (size_t i = 0; end != value && i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].unit))
			continue;
		*slot = n * units[i].seconds;
		if (isfinite(*slot) && *slot >= min && *slot <= 1e10)
			return 0;
	}
	return refuse(-EINVAL,
		      "--%s takes a time of %g s or more (500ms, 10s, 5m, 12h, 30d), not '%s'",
		      name, min, value);
}

static int add_pid(struct serve_config *c, const char *value)
{
	char *end;
	long pid = strtol(value, &end, 10);
	pid_t *slot;

	if (end == value || *end || pid < 1 || pid > INT32_MAX)
		return refuse(-EINVAL, "'%s' is not a process id", value);
	slot = vec_push(&c->pids);
	if (!slot)
		return fail(-ENOMEM, "settings");
	*slot = (pid_t)pid;
	return 0;
}

static int set_flag(bool *flag, const char *name, const char *value)
{
	*flag = !strcmp(value, "yes");
	return *flag || !strcmp(value, "no")
		       ? 0
		       : refuse(-EINVAL, "%s is yes or no, not '%s'", name, value);
}

int serve_config_set(struct serve_config *c, const char *name, const char *value)
{
	if (!strcmp(name, "listen"))
		return set_text(&c->listen, value);
	if (!strcmp(name, "match"))
		return set_text(&c->match, value);
	if (!strcmp(name, "token-file"))
		return set_text(&c->token_file, value);
	if (!strcmp(name, "tracker"))
		return set_text(&c->tracker, value);
	if (!strcmp(name, "cgroup"))
		return add_text(&c->cgroups, value);
	if (!strcmp(name, "dir"))
		return add_text(&c->dirs, value);
	if (!strcmp(name, "pid"))
		return add_pid(c, value);
	if (!strcmp(name, "tree"))
		return set_flag(&c->tree, name, value);
	if (!strcmp(name, "interval"))
		return set_seconds(&c->interval_s, name, value, 0.1);
	if (!strcmp(name, "mtbf"))
		return set_seconds(&c->mtbf_s, name, value, 1);
	return -ENOENT;
}

static char *trim(char *text)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	end = text + strlen(text);
	while (end > text && isspace((unsigned char)end[-1]))
		end--;
	*end = 0;
	return text;
}

static int take_line(struct serve_config *c, char *line)
{
	char *value;
	int err;

	line = trim(line);
	if (!*line || *line == '#')
		return 0;
	value = strchr(line, '=');
	if (!value)
		return refuse(-EINVAL, "'%s': write it as name = value", line);
	*value++ = 0;
	line = trim(line);
	err = serve_config_set(c, line, trim(value));
	return err == -ENOENT ? refuse(-EINVAL, "there is no setting '%s'", line) : err;
}

int serve_config_read(struct serve_config *c, const char *path)
{
	_cleanup_free_ char *text = NULL;
	unsigned number = 0;
	int err = io_read_file(AT_FDCWD, path, &text, NULL);

	if (err)
		return fail(err, "read %s", path);
	for (char *line = text, *next; !err && line; line = next) {
		number++;
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		err = take_line(c, line);
	}
	return err ? wrap(err, "%s line %u", path, number) : 0;
}

int serve_config_check(const struct serve_config *c)
{
	return c->pids.n || c->cgroups.n || c->match
		       ? 0
		       : refuse(-EINVAL, "what is to be followed? --pid, --cgroup or --match");
}
