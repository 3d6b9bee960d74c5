// SPDX-License-Identifier: GPL-2.0
/*
 * The page tables of one process: what was written, and resetting it. Nothing that walks page tables is exported to modules, so
 * this is done by hand, by the rules of Documentation/mm/split_page_table_lock.rst and process_addrs.rst:
 *
 * - the memory's lock is held for reading: mappings stay, and with them the upper levels of their tables;
 * - a table of the lowest level can be freed meanwhile (after an RCU grace period): its entry one level up is compared again under its lock;
 * - entries are changed by cmpxchg, because the hardware sets accessed and dirty bits in them at any time;
 * - tlb_flush_pending is raised until the TLBs are flushed, all before the memory's lock is released: whoever relies on a
 *   write-protected entry looks at it, or needs the lock for writing first.
 */
#include <linux/cpufeature.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/smp.h>

#include "compat.h"
#include "internal.h"

#define STEPS_MAX 1024 /* entries of the second level (2 MiB) in one call */
#define NOT_LOOKED_AT (VM_PFNMAP | VM_MIXEDMAP | VM_IO | VM_HUGETLB)
#define UNTOLD (ICP_PAGE_UNKNOWN | ICP_PAGE_POPULATED)

struct walk {
	struct icp_file *f;
	struct icp_take *take;
	struct mm_struct *mm;
	struct vm_area_struct *vma;
	bool reset, shared;
	bool flush; /* an entry was writable */
	unsigned int steps;
};

static struct icp_run *last_run(const struct walk *w)
{
	return w->take->n_filled ? &w->f->runs[w->take->n_filled - 1] : NULL;
}

/* Can pages from @start on be told, if this is what they are? Asked before anything is reset. */
static bool has_room(const struct walk *w, u64 start, u32 what)
{
	const struct icp_run *last = last_run(w);

	what &= w->take->report;
	return !what || w->take->n_filled < w->take->n_runs ||
	       (last && last->end == start && last->what == what);
}

static void tell(struct walk *w, u64 start, u64 end, u32 what)
{
	struct icp_run *last = last_run(w);
	u64 pages = (end - start) >> PAGE_SHIFT;

	if (what & ICP_PAGE_WRITTEN)
		w->f->stats.written += pages;
	if (what & ICP_PAGE_UNKNOWN)
		w->f->stats.unknown += pages;
	what &= w->take->report;
	if (!what)
		return;
	if (last && last->end == start && last->what == what) {
		last->end = end;
	} else if (w->take->n_filled < w->take->n_runs) {
		w->f->runs[w->take->n_filled++] =
			(struct icp_run){.start = start, .end = end, .what = what};
	} else if (last) { /* it changed since has_room(): rather too much than nothing */
		last->end = end;
		last->what |= what;
	}
}

static u32 more_of(const struct walk *w, u32 what)
{
	if (what & ICP_PAGE_POPULATED && (w->f->lost || w->vma->vm_flags & VM_MERGEABLE))
		what |= ICP_PAGE_UNKNOWN;
	return what;
}

/*
 * A shared mapping can get a writable entry by a read. Then nothing was written as long as the hardware has not set the dirty
 * bit, and no device the folio's.
 */
static bool written_through(const struct walk *w, bool dirty, struct page *page)
{
	return !w->shared || dirty || folio_test_dirty(page_folio(page));
}

static u32 what_present(const struct walk *w, pte_t pte)
{
	struct page *page;

	if (is_zero_pfn(pte_pfn(pte)))
		return 0;
	if (pte_special(pte) || !pfn_valid(pte_pfn(pte)))
		return UNTOLD;
	page = pte_page(pte);
	if (!w->shared && !vma_is_anonymous(w->vma) && !PageAnon(page))
		return 0;
	if (pte_soft_dirty(pte) || (pte_write(pte) && written_through(w, pte_dirty(pte), page)))
		return ICP_PAGE_POPULATED | ICP_PAGE_WRITTEN;
	return ICP_PAGE_POPULATED;
}

static u32 what_is(const struct walk *w, pte_t pte)
{
	if (pte_none(pte))
		return 0;
	if (pte_present(pte))
		return more_of(w, what_present(w, pte));
	if (icp_is_swap(pte))
		return more_of(w, ICP_PAGE_POPULATED |
					  (pte_swp_soft_dirty(pte) ? ICP_PAGE_WRITTEN : 0));
	return icp_is_marker(pte) ? 0 : UNTOLD; /* under migration... */
}

static pte_t cleaned(pte_t pte)
{
	if (pte_present(pte))
		return pte_clear_soft_dirty(pte_wrprotect(pte));
	return !pte_none(pte) && icp_is_swap(pte) ? pte_swp_clear_soft_dirty(pte) : pte;
}

/* Returns what the entry was in the moment when it was reset. */
static pte_t reset_pte(struct walk *w, pte_t *at, pte_t old)
{
	pte_t new = cleaned(old);

	while (!pte_same(new, old)) {
		if (try_cmpxchg((u64 *)at, (u64 *)&old, pte_val(new))) {
			w->f->stats.reset++;
			w->flush |= pte_present(old) && pte_write(old);
			break;
		}
		new = cleaned(old);
	}
	return old;
}

/*
 * Pinned for DMA: devices write past the page table. Asked after the reset, so that who pins later needs a fault. It stays
 * soft-dirty, to be told again, also once more after the pin is gone.
 */
static u32 keep_pinned_pte(pte_t *at, pte_t was)
{
	pte_t old;

	if (!pte_present(was) || pte_special(was) || !(pte_write(was) || pte_soft_dirty(was)) ||
	    !folio_maybe_dma_pinned(page_folio(pte_page(was))))
		return 0;
	old = READ_ONCE(*at);
	while (!try_cmpxchg((u64 *)at, (u64 *)&old, pte_val(pte_mksoft_dirty(old))))
		;
	return ICP_PAGE_WRITTEN | ICP_PAGE_UNKNOWN;
}

/* False: no room to tell about it, and nothing was done. */
static bool look_at_pte(struct walk *w, u64 addr, pte_t *at)
{
	pte_t pte = READ_ONCE(*at);
	u32 what = what_is(w, pte);

	if (!has_room(w, addr, what))
		return false;
	if (w->reset && what & ICP_PAGE_POPULATED && what != UNTOLD) {
		pte = reset_pte(w, at, pte);
		what = what_is(w, pte) | keep_pinned_pte(at, pte);
	}
	tell(w, addr, addr + PAGE_SIZE, what);
	return true;
}

static u32 what_huge(const struct walk *w, pmd_t pmd)
{
	struct page *page;

	if (!pmd_present(pmd) || !pmd_trans_huge(pmd) || !pfn_valid(pmd_pfn(pmd)))
		return UNTOLD; /* under migration... */
	page = pmd_page(pmd);
	if (!w->shared && !PageAnon(page)) /* the huge zero page, or a file's */
		return 0;
	if (pmd_soft_dirty(pmd) || (pmd_write(pmd) && written_through(w, pmd_dirty(pmd), page)))
		return more_of(w, ICP_PAGE_POPULATED | ICP_PAGE_HUGE | ICP_PAGE_WRITTEN);
	return more_of(w, ICP_PAGE_POPULATED | ICP_PAGE_HUGE);
}

static pmd_t reset_pmd(struct walk *w, pmd_t *at, pmd_t old)
{
	pmd_t new = pmd_clear_soft_dirty(pmd_wrprotect(old));

	while (!pmd_same(new, old)) {
		if (try_cmpxchg((u64 *)at, (u64 *)&old, pmd_val(new))) {
			w->f->stats.reset++;
			w->flush |= !!pmd_write(old);
			break;
		}
		new = pmd_clear_soft_dirty(pmd_wrprotect(old));
	}
	return old;
}

static u32 keep_pinned_pmd(pmd_t *at, pmd_t was)
{
	pmd_t old;

	if (!(pmd_write(was) || pmd_soft_dirty(was)) ||
	    !folio_maybe_dma_pinned(page_folio(pmd_page(was))))
		return 0;
	old = READ_ONCE(*at);
	while (!try_cmpxchg((u64 *)at, (u64 *)&old, pmd_val(pmd_mksoft_dirty(old))))
		;
	return ICP_PAGE_WRITTEN | ICP_PAGE_UNKNOWN;
}

enum { DONE, NO_ROOM, AGAIN };

/* An entry of the second level that is no table: a huge page, or on its way to or from one. */
static int look_at_pmd(struct walk *w, pmd_t *at, u64 addr, u64 end)
{
	spinlock_t *lock = pmd_lock(w->mm, at);
	pmd_t pmd = READ_ONCE(*at);
	u32 what;
	int ret = DONE;

	if (pmd_none(pmd))
		goto out;
	if (pmd_present(pmd) && !pmd_leaf(pmd) && !pmd_trans_huge(pmd)) {
		ret = AGAIN; /* split meanwhile */
		goto out;
	}
	what = what_huge(w, pmd);
	if (!has_room(w, addr, what)) {
		ret = NO_ROOM;
		goto out;
	}
	/* a part can't be reset without forgetting the rest */
	if (w->reset && what & ICP_PAGE_HUGE && end - addr == PMD_SIZE) {
		pmd = reset_pmd(w, at, pmd);
		what = what_huge(w, pmd) | keep_pinned_pmd(at, pmd);
	}
	tell(w, addr, end, what);
out:
	spin_unlock(lock);
	return ret;
}

/* One table of entries. *@addr is where it stopped. */
static int look_at_table(struct walk *w, pmd_t *at, u64 *addr, u64 end)
{
	spinlock_t *lock;
	pmd_t pmd;
	pte_t *pte;
	int ret = DONE;

	rcu_read_lock();
	pmd = READ_ONCE(*at);
	if (pmd_none(pmd) || !pmd_present(pmd) || pmd_leaf(pmd) || pmd_trans_huge(pmd) ||
	    pmd_bad(pmd)) {
		rcu_read_unlock();
		return AGAIN;
	}
	lock = pte_lockptr(w->mm, &pmd);
	spin_lock(lock);
	if (!pmd_same(pmd, READ_ONCE(*at))) {
		ret = AGAIN;
	} else {
		u64 from = *addr;

		pte = pte_offset_kernel(&pmd, *addr);
		for (; *addr < end; *addr += PAGE_SIZE, pte++) {
			if (!look_at_pte(w, *addr, pte)) {
				ret = NO_ROOM;
				break;
			}
		}
		w->f->stats.pages += (*addr - from) >> PAGE_SHIFT;
	}
	spin_unlock(lock);
	rcu_read_unlock();
	return ret;
}

/* [*addr, end) below one entry of the second level. */
static int walk_pmd(struct walk *w, pmd_t *at, u64 *addr, u64 end)
{
	int ret;

	do {
		pmd_t pmd = READ_ONCE(*at);

		if (pmd_none(pmd)) {
			*addr = end;
			return DONE;
		}
		if (!pmd_present(pmd) || pmd_leaf(pmd) || pmd_trans_huge(pmd)) {
			ret = look_at_pmd(w, at, *addr, end);
			if (ret == DONE) {
				w->f->stats.pages++;
				*addr = end;
			}
		} else if (pmd_bad(pmd)) {
			if (!has_room(w, *addr, UNTOLD))
				return NO_ROOM;
			tell(w, *addr, end, UNTOLD);
			*addr = end;
			return DONE;
		} else {
			ret = look_at_table(w, at, addr, end);
		}
		if (ret == AGAIN)
			cond_resched();
	} while (ret == AGAIN);
	return ret;
}

static u64 border(u64 addr, u64 size, u64 end)
{
	u64 next = (addr + size) & ~(size - 1);

	return next - 1 < end - 1 ? next : end;
}

/* One step from *@addr: below one entry of the second level, or over all that an empty entry above spans. */
static int walk_step(struct walk *w, u64 *addr, u64 end)
{
	pgd_t *pgd = pgd_offset(w->mm, *addr);
	p4d_t *p4d;
	pud_t *pud, value;

	if (pgd_none(*pgd)) {
		*addr = border(*addr, PGDIR_SIZE, end);
		return DONE;
	}
	p4d = p4d_offset(pgd, *addr);
	if (p4d_none(*p4d)) {
		*addr = border(*addr, P4D_SIZE, end);
		return DONE;
	}
	pud = pud_offset(p4d, *addr);
	value = READ_ONCE(*pud);
	if (pud_none(value)) {
		*addr = border(*addr, PUD_SIZE, end);
		return DONE;
	}
	if (pud_leaf(value) || pud_bad(value)) {
		u64 to = border(*addr, PUD_SIZE, end);

		if (!has_room(w, *addr, UNTOLD))
			return NO_ROOM;
		tell(w, *addr, to, UNTOLD);
		*addr = to;
		return DONE;
	}
	return walk_pmd(w, pmd_offset(pud, *addr), addr, border(*addr, PMD_SIZE, end));
}

/* One mapping from *@addr on. */
static int walk_vma(struct walk *w, u64 *addr, u64 end)
{
	int ret = DONE;

	w->shared = w->vma->vm_flags & VM_SHARED;
	if (w->vma->vm_flags & NOT_LOOKED_AT) {
		if (!has_room(w, *addr, ICP_PAGE_UNKNOWN))
			return NO_ROOM;
		tell(w, *addr, end, ICP_PAGE_UNKNOWN);
		*addr = end;
		return DONE;
	}
	while (ret == DONE && *addr < end) {
		if (w->steps++ == STEPS_MAX || fatal_signal_pending(current))
			return NO_ROOM;
		ret = walk_step(w, addr, end);
		cond_resched();
	}
	return ret;
}

static void walk_all(struct walk *w)
{
	struct icp_take *take = w->take;
	VMA_ITERATOR(vmi, w->mm, take->start);

	for_each_vma_range(vmi, w->vma, take->end)
	{
		u64 addr = max_t(u64, w->vma->vm_start, take->start),
		    end = min_t(u64, w->vma->vm_end, take->end);

		if (walk_vma(w, &addr, end) != DONE) {
			take->next = addr;
			break;
		}
	}
}

int icp_walk(struct icp_file *f, struct icp_take *take)
{
	struct walk w = {
		.f = f, .take = take, .mm = f->mm, .reset = take->flags & ICP_TAKE_RESET};
	int err = 0;

	if (!mmget_not_zero(w.mm))
		return -ESRCH;
	if (mmap_read_lock_killable(w.mm)) {
		mmput(w.mm);
		return -EINTR;
	}
	if (mm_has_notifiers(w.mm)) {
		err = -EOPNOTSUPP;
	} else {
		inc_tlb_flush_pending(w.mm);
		walk_all(&w);
		if (w.flush) {
			on_each_cpu(icp_flush_local, NULL, 1);
			f->stats.flushes++;
		}
		dec_tlb_flush_pending(w.mm);
	}
	f->stats.takes++;
	mmap_read_unlock(w.mm);
	mmput(w.mm);
	return err;
}

static bool is_fresh(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_SOFTDIRTY && !(vma->vm_flags & (VM_SHARED | NOT_LOOKED_AT));
}

static bool any_fresh(struct mm_struct *mm, const struct icp_take *take)
{
	struct vm_area_struct *vma;
	VMA_ITERATOR(vmi, mm, take->start);

	for_each_vma_range(vmi, vma, take->end) if (is_fresh(vma)) return true;
	return false;
}

static void take_fresh(struct icp_file *f, struct icp_take *take)
{
	struct vm_area_struct *vma;
	VMA_ITERATOR(vmi, f->mm, take->start);

	for_each_vma_range(vmi, vma, take->end)
	{
		if (!is_fresh(vma))
			continue;
		if (take->n_filled == take->n_runs) {
			take->next = max_t(u64, vma->vm_start, take->start);
			return;
		}
		f->runs[take->n_filled++] =
			(struct icp_run){.start = vma->vm_start, .end = vma->vm_end};
		icp_vm_flags_clear(vma, VM_SOFTDIRTY);
	}
}

int icp_fresh(struct icp_file *f, struct icp_take *take)
{
	struct mm_struct *mm = f->mm;
	int err = 0;
	bool any;

	if (!mmget_not_zero(mm))
		return -ESRCH;
	/* for writing it stops the process's faults, and tells its followers that mappings changed */
	err = mmap_read_lock_killable(mm);
	if (!err) {
		any = any_fresh(mm, take);
		mmap_read_unlock(mm);
		if (any)
			err = mmap_write_lock_killable(mm);
		if (any && !err) {
			take_fresh(f, take);
			mmap_write_unlock(mm);
		}
	}
	mmput(mm);
	return err;
}
