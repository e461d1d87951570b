const { defineConfig } = require('cypress')
const { cloudPlugin } = require('cypress-cloud/plugin')

module.exports = defineConfig({
  projectId: process.env.RUNBELL_PROJECT,
  retries: { runMode: 2, openMode: 0 },
  video: false,
  env: {
    // The client sends the whole resolved configuration: a server must not keep this.
    password: 's3cret-do-not-store',
    slowMs: Number(process.env.RUNBELL_SLOW_MS || 1500),
  },
  e2e: {
    supportFile: false,
    setupNodeEvents: (on, config) => cloudPlugin(on, config),
  },
})
