// SPDX-License-Identifier: GPL-2.0
/* /dev/icp: files, rights, ioctls. icp_uapi.h is the contract. */
#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/user_namespace.h>

#include "compat.h"
#include "internal.h"

static LIST_HEAD(bound_files);
static DEFINE_MUTEX(bound_lock);

static int icp_open(struct inode *inode, struct file *file)
{
	struct icp_file *f = kzalloc(sizeof(*f), GFP_KERNEL_ACCOUNT);

	if (!f)
		return -ENOMEM;
	f->runs = kvcalloc(ICP_RUNS_MAX, sizeof(*f->runs), GFP_KERNEL_ACCOUNT);
	if (!f->runs) {
		kfree(f);
		return -ENOMEM;
	}
	mutex_init(&f->lock);
	INIT_LIST_HEAD(&f->bound);
	file->private_data = f;
	return nonseekable_open(inode, file);
}

static int icp_release(struct inode *inode, struct file *file)
{
	struct icp_file *f = file->private_data;

	mutex_lock(&bound_lock);
	list_del(&f->bound);
	mutex_unlock(&bound_lock);
	if (f->mm)
		mmdrop(f->mm);
	kvfree(f->runs);
	kfree(f);
	return 0;
}

/*
 * What ptrace_may_access(PTRACE_MODE_ATTACH_REALCREDS) asks, which is not exported; security modules are not asked. The caller holds exec_update_lock: the
 * credentials are those that go with @mm.
 */
static bool may_trace(struct task_struct *task, struct mm_struct *mm)
{
	const struct cred *mine = current_cred(), *its = get_task_cred(task);
	bool same = uid_eq(mine->uid, its->euid) && uid_eq(mine->uid, its->suid) &&
		    uid_eq(mine->uid, its->uid) && gid_eq(mine->gid, its->egid) &&
		    gid_eq(mine->gid, its->sgid) && gid_eq(mine->gid, its->gid);
	bool no_more = mine->user_ns == its->user_ns &&
		       cap_issubset(its->cap_permitted, mine->cap_permitted);
	bool ok = same && no_more && icp_dumpable(task, mm);

	if (!ok)
		ok = ns_capable(its->user_ns, CAP_SYS_PTRACE) && icp_capable(task, mm);
	put_cred(its);
	return ok;
}

static int mm_of(struct task_struct *task, struct mm_struct **out)
{
	struct mm_struct *mm;
	int err = down_read_killable(&task->signal->exec_update_lock);

	if (err)
		return err;
	mm = get_task_mm(task);
	if (!mm)
		err = -ESRCH; /* a kernel thread, or it has ended */
	else if (!may_trace(task, mm))
		err = -EPERM;
	up_read(&task->signal->exec_update_lock);
	if (!err) {
		mmgrab(mm);
		*out = mm;
	}
	if (mm)
		mmput(mm);
	return err;
}

static int bind_mm(struct icp_file *f, struct mm_struct *mm)
{
	struct icp_file *other;

	mutex_lock(&bound_lock);
	list_for_each_entry(other, &bound_files, bound)
	{
		if (other->mm == mm) {
			mutex_unlock(&bound_lock);
			return -EBUSY;
		}
	}
	f->mm = mm;
	list_add(&f->bound, &bound_files);
	mutex_unlock(&bound_lock);
	return 0;
}

static int icp_bind(struct icp_file *f, const void __user *arg)
{
	struct task_struct *task;
	struct mm_struct *mm = NULL;
	struct icp_bind b;
	struct pid *pid;
	int err;

	if (copy_from_user(&b, arg, sizeof(b)))
		return -EFAULT;
	if (b.reserved || !b.pid || b.pid > INT_MAX)
		return -EINVAL;
	if (f->mm)
		return -EBUSY;
	pid = find_get_pid((int)b.pid);
	task = get_pid_task(pid, PIDTYPE_TGID);
	put_pid(pid);
	if (!task)
		return -ESRCH;
	err = mm_of(task, &mm);
	put_task_struct(task);
	if (err)
		return err;
	err = bind_mm(f, mm);
	if (err)
		mmdrop(mm);
	return err;
}

static int check_take(const struct icp_take *t, bool fresh)
{
	if (!PAGE_ALIGNED(t->start) || !PAGE_ALIGNED(t->end) || t->start > t->end ||
	    t->n_runs > ICP_RUNS_MAX)
		return -EINVAL;
	if (fresh)
		return t->flags || t->report || !t->n_runs ? -EINVAL : 0;
	if (t->flags & ~ICP_TAKE_RESET || t->report & ~ICP_PAGE_ALL ||
	    (t->report && !t->n_runs))
		return -EINVAL;
	return 0;
}

static int icp_take(struct icp_file *f, void __user *arg, bool fresh)
{
	struct icp_take take;
	int err;

	if (copy_from_user(&take, arg, sizeof(take)))
		return -EFAULT;
	err = check_take(&take, fresh);
	if (err)
		return err;
	if (!f->mm)
		return -ENOTCONN;
	take.next = take.end;
	take.n_filled = 0;
	if (take.start < take.end)
		err = fresh ? icp_fresh(f, &take) : icp_walk(f, &take);
	if (err)
		return err;
	/* without the memory's lock: it may be the caller's own */
	if (copy_to_user(u64_to_user_ptr(take.runs), f->runs,
			 take.n_filled * sizeof(*f->runs)) ||
	    copy_to_user(arg, &take, sizeof(take))) {
		f->lost = true;
		f->stats.lost++;
		return -EFAULT;
	}
	return 0;
}

static int icp_version(void __user *arg)
{
	struct icp_version v = {.version = ICP_HELPER_VERSION,
				.page_size = PAGE_SIZE,
				.runs_max = ICP_RUNS_MAX};

	return copy_to_user(arg, &v, sizeof(v)) ? -EFAULT : 0;
}

static long icp_ioctl(struct file *file, unsigned int cmd, unsigned long argument)
{
	struct icp_file *f = file->private_data;
	void __user *arg = (void __user *)argument;
	long err;

	if (mutex_lock_killable(&f->lock))
		return -EINTR;
	switch (cmd) {
	case ICP_IOC_VERSION:
		err = icp_version(arg);
		break;
	case ICP_IOC_BIND:
		err = icp_bind(f, arg);
		break;
	case ICP_IOC_TAKE:
		err = icp_take(f, arg, false);
		break;
	case ICP_IOC_FRESH:
		err = icp_take(f, arg, true);
		break;
	case ICP_IOC_STATS:
		err = copy_to_user(arg, &f->stats, sizeof(f->stats)) ? -EFAULT : 0;
		break;
	default:
		err = -ENOTTY;
	}
	mutex_unlock(&f->lock);
	return err;
}

static const struct file_operations icp_fops = {
	.owner = THIS_MODULE,
	.open = icp_open,
	.release = icp_release,
	.unlocked_ioctl = icp_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice icp_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "icp",
	.fops = &icp_fops,
	.mode = 0600,
};

static int __init icp_init(void)
{
	if (boot_cpu_has(X86_FEATURE_XENPV))
		return -ENODEV; /* its page tables are changed by asking the hypervisor */
	return misc_register(&icp_device);
}

static void __exit icp_exit(void)
{
	misc_deregister(&icp_device);
}

module_init(icp_init);
module_exit(icp_exit);
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
MODULE_AUTHOR("icp-bpf");
MODULE_DESCRIPTION("which pages of a process were written");
