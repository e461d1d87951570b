'use strict'

// Runs Cypress through its documented Module API, in the user's project. Node reads this text from its standard input,
// so nothing is written anywhere. It is called through `serve`, below, over a local socket: one JSON request a line, one
// JSON answer a line.

const fs = require('fs')
const net = require('net')
const os = require('os')
const path = require('path')
const { createRequire } = require('module')
const { pathToFileURL } = require('url')

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

const requireFrom = (root, name) => {
  try {
    return createRequire(path.join(root, 'package.json'))(name)
  } catch (err) {
    return undefined
  }
}

// Compiles what is required while f runs, with the compiler that the project has. As in Cypress, types are not checked.
async function compiling (root, f) {
  const typescript = requireFrom(root, 'typescript')
  const esbuild = !typescript && requireFrom(root, 'esbuild')

  if (!typescript && !esbuild) refuse('TypeScript is not installed in the project')

  const compile = (source, file) => (typescript
    ? typescript.transpileModule(source, {
      fileName: file,
      compilerOptions: { module: 'CommonJS', moduleResolution: 'node10', target: 'ES2020', esModuleInterop: true, allowJs: true, jsx: 'react' },
    }).outputText
    : esbuild.transformSync(source, { loader: path.extname(file) === '.tsx' ? 'tsx' : 'ts', format: 'cjs', target: 'es2020' }).code)
  const extensions = require.extensions
  const before = { ...extensions }
  const own = (file) => !file.split(path.sep).includes('node_modules')

  for (const ext of ['.ts', '.tsx', '.cts', '.mts', '.js']) {
    const usual = extensions[ext]

    extensions[ext] = (module, file) => {
      const source = fs.readFileSync(file, 'utf8')

      if (ext === '.js' && !(own(file) && /^\s*(import|export)\b/m.test(source))) return usual(module, file)
      module._compile(compile(source, file), file)
    }
  }

  try {
    return await f()
  } finally {
    for (const ext of Object.keys(extensions)) {
      if (before[ext]) extensions[ext] = before[ext]
      else delete extensions[ext]
    }
  }
}

async function loadConfig (root, file) {
  const asIs = () => import(pathToFileURL(file).href)
  const compiled = () => compiling(root, () => createRequire(file)(file))
  const tsx = () => {
    const api = requireFrom(root, 'tsx/esm/api') || refuse('tsx is not installed in the project')

    return api.tsImport(pathToFileURL(file).href, pathToFileURL(file).href)
  }
  const ways = /\.[cm]?ts$/.test(file) ? [compiled, tsx, asIs] : [asIs, compiled]
  const problems = []

  for (const way of ways) {
    try {
      let config = await way()

      // A default export, once for each system of modules it went through.
      for (let i = 0; i < 2 && config && config.default; i++) config = config.default
      if (!config || typeof config !== 'object') refuse('it does not export a configuration')

      return config
    } catch (err) {
      problems.push(err && err.message ? err.message.split('\n')[0] : String(err))
    }
  }
  // Plain JavaScript is compiled only in case it helps: what is wrong is what Node says.
  if (ways[0] === asIs) problems.length = 1
  refuse(`${path.basename(file)} cannot be read: ${[...new Set(problems)].join('; ')}`)
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

const list = (value) => (value === undefined || value === null ? undefined : [].concat(value).map(String))

async function open ({ args }) {
  root = projectIn(args)
  const found = findCypress(root)

  if (parseInt(found.version) < 10) refuse(`Cypress ${found.version} is too old: this needs 10 or newer`)
  if (typeof found.module.run !== 'function') refuse('the package named cypress has no Module API: is it Cypress?')
  cypress = found.module
  base = await cypress.cli.parseRunArguments(['cypress', 'run', ...args])

  for (const [option, advice] of Object.entries(ours)) {
    if (base[option] !== undefined) refuse(`--${option.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)} cannot be passed on to Cypress: ${advice}`)
  }

  const answer = {
    root, cypress: found.version, node: process.versions.node, component: base.testingType === 'component' || Boolean(base.component), browser: base.browser,
    posixExitCodes: Boolean(base.posixExitCodes), osName: os.platform(), osVersion: os.release(),
    osCpus: os.cpus().map(({ model, speed }) => ({ model, speed })), osMemory: { free: os.freemem(), total: os.totalmem() },
  }

  const file = findConfig(root, base.configFile)

  try {
    const config = await loadConfig(root, file)
    const own = config[answer.component ? 'component' : 'e2e'] || {}
    const given = parsePairs(base.config)
    const env = (name) => process.env[`CYPRESS_${name}`] ?? process.env[`CYPRESS_${name.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase()}`]
    const value = (name) => list(given[name] ?? env(name) ?? own[name])

    answer.projectId = given.projectId ?? env('projectId') ?? config.projectId
    answer.specPattern = value('specPattern')
    answer.excludeSpecPattern = value('excludeSpecPattern')
    // It may be called only by Cypress: what it does beside, it would do twice.
    answer.patternsChange = /specPattern/i.test(String(own.setupNodeEvents))
    // Specs of the other type are not components', even where both patterns find them.
    if (answer.component) answer.ignoredPattern = list((config.e2e || {}).specPattern)
  } catch (err) {
    if (!err.expected) throw err
    answer.configProblem = err.message
  }

  return answer
}

// ----------------------------------------------------------------------------------------------------------- running

async function run ({ specs, keepArtifacts, marker }) {
  // --spec takes patterns, separated by commas: a question mark stands for each character that would mean more than itself.
  // Whole paths mean the same wherever the command was started.
  const pattern = (spec) => path.resolve(root, spec).split(path.sep).join('/').replace(/[\\,[\]{}()!*+@|^$]/g, '?')
  const options = { ...base, spec: specs.map(pattern).join(',') }

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

    // A Cypress that was killed, for its memory most likely, had started: the next spec may do better.
    return { status: 'failed', notStarted: !/unexpectedly exited/.test(message), failures: 1, message }
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
