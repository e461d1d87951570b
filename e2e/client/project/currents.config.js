module.exports = {
  projectId: process.env.RUNBELL_PROJECT,
  recordKey: process.env.RUNBELL_KEY,
  e2e: { batchSize: Number(process.env.RUNBELL_BATCH_SIZE || 2) },
  component: { batchSize: 1 },
}
