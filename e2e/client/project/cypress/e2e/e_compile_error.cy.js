require('./does-not-exist')

describe('e', () => {
  it('is never seen', () => {})
})
