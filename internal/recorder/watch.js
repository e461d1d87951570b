// Stands in for the project's configuration while Cypress runs: it is that configuration, whose setupNodeEvents also
// tells the recorder what Cypress is about to run and how each spec ended. Everything in it is documented by Cypress: a
// configuration file, setupNodeEvents, and the events before:run, before:spec and after:spec.
function watch (exported, net, { port, token, type }) {
  const config = exported.default || exported // as Cypress reads it
  const own = config && config[type]

  // Cypress says best what is wrong with it.
  if (!own || typeof own !== 'object' || (own.setupNodeEvents && typeof own.setupNodeEvents !== 'function')) return config

  return { ...config, [type]: { ...own, setupNodeEvents } }

  async function setupNodeEvents (on, given) {
    const { specPattern, excludeSpecPattern, projectId } = given // what they change in it counts only if they return it
    const theirs = {}
    const changed = own.setupNodeEvents && await own.setupNodeEvents((event, handler) => {
      // Cypress keeps the last handler of an event: ours follows, and calls theirs.
      theirs[event] = handler
      on(event, handler)
    }, given)
    const now = { specPattern, excludeSpecPattern, projectId, ...changed }
    const ask = connect()
    const list = (value) => (value === undefined || value === null ? [] : [].concat(value).map(String))
    const call = async (event, ...args) => theirs[event] && theirs[event](...args)
    const { specs } = await ask({
      event: 'config', projectId: now.projectId, specPattern: list(now.specPattern), excludeSpecPattern: list(now.excludeSpecPattern),
      ignoredPattern: list(given.additionalIgnorePattern), videoUploadOnPasses: onPasses(given), browsers: (given.browsers || []).map(({ name, version }) => ({ name, version })),
    })

    let began // the video of the spec that runs

    on('before:run', async (details) => {
      await ask({ event: 'run', specs: (details.specs || []).map((spec) => spec.relative) })

      return call('before:run', details)
    })
    on('before:spec', async (spec) => {
      await ask({ event: 'begin', spec: spec.relative })
      const answer = await call('before:spec', spec)

      began = Date.now()

      return answer
    })
    on('after:spec', async (spec, results) => {
      try {
        return await call('after:spec', spec, results)
      } finally {
        await ask({ event: 'end', spec: spec.relative, result: results, began })
      }
    })

    return specs ? { ...changed, specPattern: specs.map(exactly) } : changed
  }

  // From 13 on, Cypress knows this setting no more and leaves it out of what it gives.
  function onPasses (given) {
    return [given, own, config].map((c) => c.videoUploadOnPasses).find((value) => typeof value === 'boolean')
  }

  // A pattern that finds this file only. Windows has the backslash in paths, and fewer signs in names.
  function exactly (spec) {
    return process.platform === 'win32' ? spec.replace(/[[\]{}()!+@,^$]/g, '?') : spec.replace(/[\\*?[\]{}()!+@|,^$#]/g, '\\$&')
  }

  // One JSON line each way; answers come in the order of what was asked.
  function connect () {
    const socket = net.connect(port, '127.0.0.1')
    const waiting = []
    let rest = ''
    let failed

    const fail = (err) => {
      failed = failed || err || new Error('Runbell has ended')
      waiting.splice(0).forEach(({ reject }) => reject(failed))
    }

    socket.on('error', fail)
    socket.on('close', () => fail())
    socket.setEncoding('utf8')
    socket.on('data', (data) => {
      const lines = (rest + data).split('\n')

      rest = lines.pop()
      for (const line of lines) waiting.shift().resolve(JSON.parse(line))
      if (!waiting.length) socket.unref()
    })
    socket.write(`${JSON.stringify({ token })}\n`)

    return (question) => new Promise((resolve, reject) => {
      if (failed) return reject(failed)
      waiting.push({ resolve, reject })
      socket.ref()
      socket.write(`${JSON.stringify(question)}\n`)
    })
  }
}
