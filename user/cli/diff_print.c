// SPDX-License-Identifier: GPL-2.0
/* What diff says, as text and as JSON. */
#include <inttypes.h>
#include <string.h>

#include "cli/diff.h"
#include "obs/view.h"

static const char *change_name(enum ctl_change what)
{
	return what == CTL_ADDED ? "added" : what == CTL_GONE ? "gone" : "changed";
}

void diff_tally_add(struct tally *t, enum ctl_change what, uint64_t n)
{
	if (what == CTL_ADDED)
		t->added += n;
	else if (what == CTL_GONE)
		t->gone += n;
	else
		t->changed += n;
}

/* The next mapping's pieces from *@at on, added up. */
static const Icp__Vma *next_row(const struct pieces *list, size_t *at, struct tally *sum)
{
	const struct piece *first = &list->data[*at];

	*sum = (struct tally){0};
	for (; *at < list->n; (*at)++) {
		const struct piece *p = &list->data[*at];

		if (p->vma != first->vma || p->of_a != first->of_a)
			break;
		diff_tally_add(sum, p->what, p->n);
	}
	return first->vma;
}

void diff_print_tally(const struct tally *t)
{
	if (!t->changed && !t->added && !t->gone) {
		printf("nothing differs\n");
		return;
	}
	printf("%s pages changed, ", human_count(t->changed, (char[32]){0}));
	printf("%s added, ", human_count(t->added, (char[32]){0}));
	printf("%s gone\n", human_count(t->gone, (char[32]){0}));
}

void diff_print_vmas(const struct pieces *list)
{
	char range[48], name[512];

	if (list->n)
		printf("  %-25s  %-4s  %9s  %9s  %9s  %s\n", "range", "prot", "changed",
		       "added", "gone", "name");
	for (size_t at = 0; at < list->n;) {
		bool of_a = list->data[at].of_a;
		struct tally t;
		const Icp__Vma *v = next_row(list, &at, &t);

		snprintf(range, sizeof(range), "-");
		if (v)
			snprintf(range, sizeof(range), "%012" PRIx64 "-%012" PRIx64, v->start,
				 v->end);
		printf("  %-25s  %-4s  %9s  %9s  %9s  %s%s\n", range,
		       v ? cli_prot(v, (char[5]){0}) : "-",
		       human_count(t.changed, (char[32]){0}),
		       human_count(t.added, (char[32]){0}), human_count(t.gone, (char[32]){0}),
		       v ? cli_clean(cli_vma_name(v), name, sizeof(name)) : "no mapping",
		       of_a ? " (unmapped)" : "");
	}
}

void diff_print_pages(const struct pieces *list, uint32_t page_size)
{
	if (list->n)
		printf("  %-25s  %9s  %s\n", "pages", "number", "what");
	vec_each (p, list)
		printf("  %012" PRIx64 "-%012" PRIx64 "  %9" PRIu64 "  %s\n", p->start,
		       p->start + p->n * page_size, p->n, change_name(p->what));
}

void diff_print_symbols(const struct changed_symbols *s)
{
	char path[512];

	if (s->found.n)
		printf("  %-16s  %10s  %10s  %s\n", "address", "differ", "of bytes",
		       "variable");
	vec_each (f, &s->found)
		printf("  %016" PRIx64 "  %10" PRIu64 "  %10" PRIu64 "  %s (%s)\n", f->address,
		       f->differ, f->size, f->name, cli_clean(f->path, path, sizeof(path)));
	vec_each (n, &s->nameless)
		printf("  no names of variables for %s: %s\n",
		       cli_clean(n->path, path, sizeof(path)), n->why);
}

int diff_json_tally(json_t *o, const struct tally *t)
{
	return json_object_set_new(o, "changed", json_integer((json_int_t)t->changed)) ||
	       json_object_set_new(o, "added", json_integer((json_int_t)t->added)) ||
	       json_object_set_new(o, "gone", json_integer((json_int_t)t->gone));
}

int diff_json_vmas(json_t *o, const struct pieces *list)
{
	json_t *rows = json_array();
	int bad = json_object_set_new(o, "vmas", rows);

	for (size_t at = 0; !bad && at < list->n;) {
		bool of_a = list->data[at].of_a;
		json_t *row = json_object();
		struct tally t;
		const Icp__Vma *v = next_row(list, &at, &t);

		bad = json_array_append_new(rows, row) || diff_json_tally(row, &t) ||
		      json_object_set_new(row, "unmapped", json_boolean(of_a)) ||
		      json_object_set_new(row, "start",
					  v ? cli_json_hex(v->start) : json_null()) ||
		      json_object_set_new(row, "end", v ? cli_json_hex(v->end) : json_null()) ||
		      json_object_set_new(row, "name",
					  cli_json_string(v ? cli_vma_name(v) : ""));
	}
	return bad;
}

int diff_json_pages(json_t *o, const struct pieces *list)
{
	json_t *rows = json_array();
	int bad = json_object_set_new(o, "runs", rows);

	for (size_t i = 0; !bad && i < list->n; i++) {
		const struct piece *p = &list->data[i];

		bad = json_array_append_new(rows, json_pack("{s:o, s:I, s:s}", "start",
							    cli_json_hex(p->start), "pages",
							    (json_int_t)p->n, "what",
							    change_name(p->what)));
	}
	return bad;
}

int diff_json_symbols(json_t *o, const struct changed_symbols *s)
{
	json_t *found = json_array(), *nameless = json_array();
	int bad = json_object_set_new(o, "variables", found);

	bad |= json_object_set_new(o, "nameless", nameless);
	for (size_t i = 0; !bad && i < s->found.n; i++) {
		const struct changed_symbol *f = &s->found.data[i];

		bad = json_array_append_new(
			found,
			json_pack("{s:s, s:o, s:o, s:I, s:I, s:I}", "name", f->name, "file",
				  cli_json_string(f->path), "address", cli_json_hex(f->address),
				  "size", (json_int_t)f->size, "differ", (json_int_t)f->differ,
				  "first", (json_int_t)f->first));
	}
	for (size_t i = 0; !bad && i < s->nameless.n; i++)
		bad = json_array_append_new(nameless,
					    json_pack("{s:o, s:s}", "file",
						      cli_json_string(s->nameless.data[i].path),
						      "why", s->nameless.data[i].why));
	return bad;
}
