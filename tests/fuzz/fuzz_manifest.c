// SPDX-License-Identifier: GPL-2.0
#include "image/manifest.h"
#include "seed.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	uint8_t hash[16] = {1};
	Icp__RegSet reg = ICP__REG_SET__INIT, *regs = &reg;
	Icp__Thread thread = ICP__THREAD__INIT, *threads = &thread;
	Icp__Vma vma = ICP__VMA__INIT, *vmas = &vma;
	Icp__StateBlob blob = ICP__STATE_BLOB__INIT, *blobs = &blob;
	Icp__Process process = ICP__PROCESS__INIT, *processes = &process;
	Icp__Segment segment = ICP__SEGMENT__INIT, *segments = &segment;
	Icp__File file = ICP__FILE__INIT, *files = &file;
	Icp__Job job = ICP__JOB__INIT;
	Icp__Manifest m = ICP__MANIFEST__INIT;
	size_t size;
	void *data;

	reg.data = (ProtobufCBinaryData){sizeof(hash), hash};
	thread.tid = 42, thread.regs = &regs, thread.n_regs = 1;
	vma.start = 0x400000, vma.end = 0x401000, vma.path = (char *)"/bin/true";
	blob.kind = (char *)"signals", blob.data = reg.data;
	process.pid = 42, process.threads = &threads, process.n_threads = 1,
	process.vmas = &vmas, process.n_vmas = 1;
	process.blobs = &blobs, process.n_blobs = 1;
	segment.shmid = 7;
	file.kind = ICP_FILE_CTL, file.stream = 42, file.hash = reg.data;
	job.label = (char *)"seed";
	m.format = 1, m.version = 2, m.parent = 1, m.page_size = 4096, m.job = &job;
	m.processes = &processes, m.n_processes = 1, m.segments = &segments, m.n_segments = 1,
	m.files = &files, m.n_files = 1;
	if (manifest_check(&m) || manifest_pack(&m, &data, &size))
		abort();
	seed_write("whole", data, size);
	free(data);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Icp__Manifest *m;
	size_t len;
	void *again;

	if (manifest_parse(data, size, &m))
		return 0;
	if (!manifest_pack(m, &again, &len))
		free(again);
	manifest_free(m);
	return 0;
}
