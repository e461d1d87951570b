'use strict'

// Runs Cypress through its documented Module API, in the user's project. Node reads this text from its standard input. It
// is called through `serve`, below, over a local socket: one JSON request a line, one JSON answer a line.

const fs = require('fs')
const net = require('net')
const os = require('os')
const path = require('path')
const { createRequire } = require('module')

// What the recorder does itself, and Cypress cannot do beside it.
const ours = {
  record: 'leave it out', key: 'give it to runbell', parallel: 'give it to runbell', group: 'give it to runbell',
  tag: 'give it to runbell', ciBuildId: 'give it to runbell', spec: 'give it to runbell',
  autoCancelAfterFailures: 'give it to runbell',
}

let cypress
let base // the options of every run, as Cypress itself parsed them
let root // the directory of the project
let running = false

const refuse = (message) => { throw Object.assign(new Error(message), { expected: true }) }

// ------------------------------------------------------------------------------------------------------- the project

function findCypress (root) {
  // Yarn's Plug'n'Play has no node_modules: `require` works once its file is loaded.
  for (let dir = root; !process.versions.pnp; dir = path.dirname(dir)) {
    const pnp = path.join(dir, '.pnp.cjs')

    if (fs.existsSync(pnp)) require(pnp).setup()
    if (dir === path.dirname(dir)) break
  }
  for (const dir of [root, process.cwd()]) {
    const from = createRequire(path.join(dir, 'package.json'))

    try {
      const found = { module: from('cypress'), version: from('cypress/package.json').version }

      // Cypress 10 leaves its results behind in a temporary file, with the whole configuration in it.
      if (found.version.startsWith('10.')) createRequire(from.resolve('cypress'))('tmp').setGracefulCleanup()

      return found
    } catch (err) {
      if (err.code !== 'MODULE_NOT_FOUND' || !/'cypress(\/package\.json)?'/.test(err.message)) throw err
    }
  }
  refuse(`the npm package cypress is not installed in ${root}: run "npm install", or "npm install --save-dev cypress"`)
}

// Cypress' own parser needs Cypress, and Cypress is found in the project.
function projectIn (args) {
  for (let i = 0; i < args.length; i++) {
    const [name, inline] = args[i].split(/=(.*)/s)

    if (name === '--project' || name === '-P') return path.resolve(inline ?? args[i + 1] ?? '.')
  }

  return process.cwd()
}

const configNames = ['ts', 'js', 'cjs', 'mjs', 'mts', 'cts'].map((ext) => `cypress.config.${ext}`)

function findConfig (root, given) {
  const names = given ? [given] : configNames
  const found = names.map((name) => path.resolve(root, name)).find((file) => fs.existsSync(file))

  return found || refuse(given
    ? `the configuration file ${given} does not exist in ${root}`
    : `there is no cypress.config.{js,cjs,mjs,ts} in ${root}: start in the directory of the project, or give -- --project DIR`)
}

// Whether Node takes a file for an ES module: by its name, or by the package it belongs to.
function isModule (file) {
  if (/\.[cm][jt]s$/.test(file)) return /\.m[jt]s$/.test(file)
  for (let dir = path.dirname(file); ; dir = path.dirname(dir)) {
    try {
      return JSON.parse(fs.readFileSync(path.join(dir, 'package.json'), 'utf8')).type === 'module'
    } catch (err) {
      if (dir === path.dirname(dir)) return false
    }
  }
}

// ts-node, with which Cypress reads a configuration in TypeScript, looks for tsconfig.json beside the file that Cypress was
// given, which is ours.
function pointToTypeScriptConfig (file) {
  for (let dir = path.dirname(file); !process.env.TS_NODE_PROJECT; dir = path.dirname(dir)) {
    const found = path.join(dir, 'tsconfig.json')

    if (fs.existsSync(found)) process.env.TS_NODE_PROJECT = found
    if (dir === path.dirname(dir)) break
  }
}

// --config is JSON, or pairs such as a=b,c=d whose values may be JSON.
function parsePairs (text) {
  if (!text) return {}
  if (typeof text === 'object') return text

  try {
    return JSON.parse(text)
  } catch (err) {
    const pairs = {}

    for (const pair of text.split(/,(?=[\w.]+=)/)) {
      const [key, value = ''] = pair.split(/=(.*)/s)

      try {
        pairs[key] = JSON.parse(value)
      } catch (notJSON) {
        pairs[key] = value
      }
    }

    return pairs
  }
}

async function open ({ args, spec }) {
  root = projectIn(args)
  const found = findCypress(root)

  if (parseInt(found.version) < 10) refuse(`Cypress ${found.version} is too old: this needs 10 or newer`)
  if (typeof found.module.run !== 'function') refuse('the package named cypress has no Module API: is it Cypress?')
  cypress = found.module
  base = await cypress.cli.parseRunArguments(['cypress', 'run', ...args])

  for (const [option, advice] of Object.entries(ours)) {
    if (base[option] !== undefined) refuse(`--${option.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)} cannot be passed on to Cypress: ${advice}`)
  }

  if (spec) base = await cypress.cli.parseRunArguments(['cypress', 'run', ...args, `--spec=${spec}`])

  const configFile = findConfig(root, base.configFile)

  pointToTypeScriptConfig(configFile)

  return {
    root, cypress: found.version, configFile, esModule: isModule(configFile),
    component: base.testingType === 'component' || Boolean(base.component), browser: base.browser,
    posixExitCodes: Boolean(base.posixExitCodes), osName: os.platform(), osVersion: os.release(),
    osCpus: os.cpus().map(({ model, speed }) => ({ model, speed })), osMemory: { free: os.freemem(), total: os.totalmem() },
  }
}

// ----------------------------------------------------------------------------------------------------------- running

async function run ({ configFile, keepArtifacts, marker }) {
  const options = { ...base, configFile }

  if (keepArtifacts) {
    // Every run starts by emptying the folders of screenshots and videos. The user sees one run, so only the first may.
    options.config = { ...parsePairs(base.config), trashAssetsBeforeRuns: false }
  }

  running = true
  try {
    const { config, ...result } = await cypress.run(options) // config holds the user's environment: it stays here

    return result
  } catch (err) {
    const message = String((err && err.message) || err)

    return { status: 'failed', failures: 1, message }
  } finally {
    running = false
    // All that Cypress has printed comes before this.
    process.stdout.write(marker)
    process.stderr.write(marker)
  }
}

// -------------------------------------------------------------------------------------------------------- the socket

function serve ({ port, token }) {
  const socket = net.connect(port, '127.0.0.1')
  const requests = { open, run }
  const answer = (value) => socket.write(`${JSON.stringify(value)}\n`)
  let rest = ''

  answer({ token })
  socket.setEncoding('utf8')
  socket.on('data', (data) => {
    const lines = (rest + data).split('\n')

    rest = lines.pop()
    for (const line of lines) {
      const { do: name, ...request } = JSON.parse(line)

      requests[name](request).then((ok) => answer({ ok }), (err) => answer({ error: err.expected ? err.message : String((err && err.stack) || err) }))
    }
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    if (!running) process.exit(0)
    // The recorder is gone, however it went, and nobody waits for Cypress any more.
    if (os.platform() === 'win32') {
      require('child_process').spawnSync('taskkill', ['/T', '/F', '/PID', String(process.pid)])
    }
    process.on('SIGTERM', () => {})
    process.kill(-process.pid, 'SIGTERM')
    setTimeout(() => process.kill(-process.pid, 'SIGKILL'), 1000)
  })
}
